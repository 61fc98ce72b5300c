@echo off
rem Windows: open this file, or in a terminal: install.bat [FOLDER]
for %%v in (@VERSIONS@) do (
    py -%%v -I "%~dp0install.py" --fits >nul 2>nul && (
        py -%%v -I "%~dp0install.py" %*
        goto done
    )
)
python -I "%~dp0install.py" %*
if errorlevel 9009 echo Not installed: no Python was found here. Install Python @PYTHONS@, then open this file again.
:done
if "%~1"=="" pause
