"Settings of the site; `tools/make_site.py` copies them beside its pages. Nothing is asked of another host."

from docutils import nodes
from latex2mathml.converter import convert

project = 'earthgpt-lite'
author = 'earthgpt-lite contributors'
copyright = f'2026 onwards, {author}'
html_title = project

extensions = ['myst_nb']
nb_execution_mode = 'off'  # the stored outputs are shown
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 4
html_math_renderer = 'mathml'
html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['site.css']
html_show_sphinx = False
html_copy_source = False
pygments_style = 'friendly'
pygments_dark_style = 'github-dark'
# a lesson may begin a part of its text with a smaller heading
suppress_warnings = ['myst.header']


def visit_math(translator, node):
    "A formula in the text, as MathML, which every browser draws without a script."
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_math_block(translator, node):
    "A formula on a line of its own."
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        'mathml', inline_renderers=(visit_math, None), block_renderers=(visit_math_block, None)
    )
    return dict(parallel_read_safe=True, parallel_write_safe=True)
