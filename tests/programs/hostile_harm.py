# ruff: noqa: E501
"""Programs that outlive their limit, take everything, or leave their place."""

from tests.programs.attacking import attempt

PROGRAMS = {
    # outliving the limit
    "busy": "def f(x):\n  while True: pass",
    "busy_at_import": "while True: pass",
    "swallowed_timeout": (
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
        "def f(x):\n  while True:\n    try:\n      while True: pass\n    except: pass"
    ),
    "cancelled_alarm": "import signal, time\nsignal.alarm(0); signal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(60)",
    "sleep": "import time\ndef f(x): time.sleep(60)",
    "endless_output": "def f(x):\n  while True: print('x' * 10000, flush=True)",
    "endless_iterator": "class A:\n  def __iter__(self): return self\n  def __next__(self): return 0\ndef f(x): return A()",
    "long_arithmetic": "def f(x): return 3 ** (10 ** 9)",
    "thread_left_running": (
        "import threading\ndef spin():\n  while True: pass\n"
        "for _ in range(4): threading.Thread(target=spin).start()\ndef f(x): return 0"
    ),
    # new processes
    "fork_bomb": attempt("import os\nfor _ in range(100):\n    os.fork()"),
    "fork_without_libc": attempt("import ctypes\nassert ctypes.CDLL(None).syscall(57) > 0"),
    "daemon": attempt("""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: pass
            os._exit(0)
    """),
    "subprocess": attempt("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)"),
    "shell": attempt("import os\nassert os.system('true') == 0"),
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "multiprocessing": attempt("import multiprocessing as m\np = m.get_context('fork').Process(target=print)\np.start()"),
    # taking everything
    "memory_bomb": attempt("x = []\nwhile True:\n    x.append(bytearray(2**28))\n    if len(x) > 16: return"),
    "memory_bomb_in_call": "def f(x): return [0] * 10**12",
    "large_value": "def f(x): return 'x' * (513 * 2**20)",
    "deep_value": "def f(x):\n  y = []\n  for _ in range(10**5): y = [y]\n  return y",
    "cyclic_value": "def f(x):\n  y = []\n  y.append(y)\n  return y",
    "large_range": "def f(x): return range(10**18)",
    "many_items_that_equal": "class A:\n  def __eq__(self, other): return True\ndef f(x): return [A()] * 2**17",
    "recursion": "def f(x): return f(x)",
    "disk_bomb": attempt("""
        for number in range(64):
            for folder in ('', '/tmp/', '/dev/shm/', '/var/tmp/'):
                try: stream = open(f'{folder}bomb{number}', 'wb')
                except OSError: continue
                break
            else: raise OSError
            with stream: stream.write(bytes(2**22))
    """),
    "large_file": attempt("with open('/tmp/large', 'wb') as stream:\n    stream.truncate(2**40)\n    stream.write(bytes(2**26))"),
    "higher_limits": attempt("import resource as r\nr.setrlimit(r.RLIMIT_AS, (2**40, 2**40))"),
    "shared_memory": attempt("import ctypes\nassert ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0"),
    "shared_memory_of_others": attempt("import ctypes\nassert ctypes.CDLL(None).shmctl(0, 3, ctypes.create_string_buffer(256)) >= 0"),
    "semaphores_of_others": attempt("import ctypes\nassert ctypes.CDLL(None).semctl(0, 0, 3, ctypes.create_string_buffer(256)) >= 0"),
    "shared_memory_folder": attempt("import os\nopen('/dev/shm/calmctl-x', 'w').close()\nos.unlink('/dev/shm/calmctl-x')"),
    "memory_file": attempt("import os\nos.memfd_create('x')"),
    # outside
    "password_file": attempt("open('/etc/passwd').read()"),
    "home": attempt("import os\nassert len(os.listdir('HOME')) > 1"),
    "data_set": attempt("assert 'def' in open('DATA_SET').read()"),
    "own_package": attempt("import os\nassert any(os.path.exists(p + '/calmctl/__init__.py') for p in ('CHECKOUT',) )\nopen('CHECKOUT/pyproject.toml')"),
    "write_outside": attempt("open('OUTSIDE', 'w').write('x')"),
    "write_system": attempt("open('/usr/x', 'w').write('x')"),
    "append_to_itself": attempt("import os, encodings\nopen(encodings.__file__, 'a').close()"),
    "remove": attempt("import os\nos.unlink('DATA_SET')"),
    "change_mode": attempt("import os\nos.chmod('DATA_SET', 0o777)"),
    "make_folder": attempt("import os\nos.mkdir('OUTSIDE')"),
    "tcp": attempt("import socket\nsocket.create_server(('127.0.0.1', 0))"),
    "udp": attempt("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"),
    "unix_socket": attempt("import socket\nsocket.socket(socket.AF_UNIX).bind('\\0calmctl')"),
    "kill_parent": attempt("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
    "kill_all": attempt("import os, signal\nos.kill(-1, signal.SIGKILL)"),
    "kill_group": attempt("import os, signal\nos.killpg(0, signal.SIGKILL)"),
    "signal_by_descriptor": attempt("""
        import fcntl, os, socket
        here, there = socket.socketpair()
        fcntl.fcntl(here, fcntl.F_SETOWN, os.getppid())
        fcntl.fcntl(here, 10, 9)
        fcntl.fcntl(here, fcntl.F_SETFL, os.O_ASYNC)
        there.send(b'x')
    """),
    "signal_by_control": attempt("""
        import fcntl, os, socket, struct
        fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack('i', os.getppid()))
    """),
    "socket_by_pair": attempt("import socket\nsocket.socketpair(type=socket.SOCK_DGRAM)"),
    "newer_system_call": attempt("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.syscall(463, -1, b'', 0, b'user.x', None, 0) < 0 and ctypes.get_errno() != 38
    """),
    "limit_parent": attempt("import os, resource as r\nr.prlimit(os.getppid(), r.RLIMIT_CPU, (0, 0))"),
    "slow_parent": attempt("import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"),
    "terminal": attempt("open('/dev/tty', 'w')"),
    "mount": attempt("import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0"),
    "namespace": attempt("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0"),
}  # fmt: skip
