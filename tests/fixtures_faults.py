"A process in which one touch of the disk fails or kills."

import os
import sys

from earthgpt_lite import files
from earthgpt_lite.errors import BadInput

TOUCHES = {'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'os.truncate'}
DONE, FAILED, WRONG, UNTOUCHED, KILLED = 0, 1, 4, 5, 9  # how a process ended


def in_a_process(work, at=None, fault=None, room=None, says='No space left'):
    "How it ended; the touch of the room's disk number `at` fails, with a message that `says`, or kills."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count, armed = iter(range(10**6)), [at is not None]

    def touch(path=''):
        if armed and armed[0] and str(path).startswith(str(room)) and next(count) == at:
            armed.clear()
            fault()

    def hear(event, args):
        writes = event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in TOUCHES or writes:
            touch(os.fsdecode(args[0]) if isinstance(args[0], (str, bytes, os.PathLike)) else '')

    fsync, write_all = os.fsync, files._write_all
    os.fsync = lambda fd: (touch(room), fsync(fd))
    files._write_all = lambda f, data: (write_all(f, data[:9]), touch(room), write_all(f, data[9:]))
    sys.addaudithook(hear)
    code = WRONG
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = work() or DONE
        code = UNTOUCHED if armed and armed[0] else code
    except (BadInput, OSError) as e:
        code = FAILED if says in str(e) else WRONG
    finally:
        armed.clear()
        os._exit(code)


def full():
    raise OSError(28, os.strerror(28))


def killed():
    os._exit(KILLED)
