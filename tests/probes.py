"""What programs try for each line of the table in docs/code-execution.md: functions that raise where they fail.

Words in capitals stand for what a test gives. Nothing here leaves a mark where it succeeds.
"""

# Calls by number, on x86-64 and AArch64.
PRELUDE = """
import ctypes, fcntl, os, resource, socket, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
COLUMN = 0 if os.uname().machine == 'x86_64' else 1
def call(numbers, *arguments):
    result = libc.syscall(numbers[COLUMN], *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def possible(action):
    try:
        action()
        return True
    except BaseException:
        return False
"""

# Line -> attempts; the line is true where any of them succeeds.
ATTEMPTS = {
    "use the network and the sockets of the machine": [
        "socket.create_server(('127.0.0.1', 0))",
        "socket.socket(socket.AF_UNIX).bind('\\0calmctl-probe')",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "socket.socketpair(type=socket.SOCK_DGRAM)",
        "socket.socket(16, socket.SOCK_RAW, 0)",
    ],
    "bind or connect a pair of sockets": [
        "socket.socketpair()[0].bind('\\0calmctl-pair')",
        "pair = socket.socketpair()[0]; assert pair.connect_ex('\\0none') not in (1, 13)",
    ],
    "read files that calmctl may read, the tests among them": ["open('SECRET').read()", "os.listdir('FOLDER')"],
    "ask whether a file exists, and its size, where it knows the path": ["assert os.stat('SECRET').st_size == 6"],
    "change or remove files of calmctl's user": [
        "open('SECRET', 'r+').close()",
        "os.chmod('SECRET', 0o600)",
        "os.utime('SECRET')",
        "os.mkdir('FOLDER/new')",
        "os.truncate('SECRET', 6)",
        "os.link('SECRET', 'FOLDER/link')",
        "os.setxattr('SECRET', 'user.x', b'')",
    ],
    "set flags and leases of files of calmctl's user": [
        "fcntl.fcntl(os.open('SECRET', os.O_RDONLY), 1024, fcntl.F_RDLCK)",
        "fd = os.open('SECRET', os.O_RDONLY); flags = bytearray(8)\n"
        "fcntl.ioctl(fd, 0x80086601, flags); fcntl.ioctl(fd, 0x40086602, bytes(flags))",
    ],
    "write files in its folder": [
        "open('own', 'w').write('x'); os.mkdir('inner'); os.rename('own', 'inner/own')\n"
        "os.unlink('inner/own'); os.rmdir('inner')"
    ],
    "write a file of more than 16 MiB, or one with a hole": [
        "open('hole', 'wb').truncate(2**25)",
        "os.posix_fallocate(os.open('hole', os.O_CREAT | os.O_RDWR), 0, 2**25)",
        "stream = open('hole', 'wb', 0); stream.seek(2**40); stream.write(b'x')",
    ],
    "write in folders that are everybody's, as `/tmp`": [
        f"open('{folder}/calmctl-probe', 'w').close(); os.unlink('{folder}/calmctl-probe')"
        for folder in ("/var/tmp", "/dev/shm")
    ],
    "signal and slow down processes of calmctl's user": [
        "os.kill(VICTIM, 0)",
        "os.setpriority(os.PRIO_PROCESS, VICTIM, os.getpriority(os.PRIO_PROCESS, VICTIM))",
        "resource.prlimit(VICTIM, resource.RLIMIT_CPU)",
        "call((203, 122), VICTIM, 0, None)  # sched_setaffinity: EFAULT where it may be set\n",
    ],
    "kill its judge, which counts as `crashed`": [
        "os.kill(os.getppid(), 0)",
        "os.kill(-1, 0)",
        "os.killpg(0, 0)",
        "call((424, 424), call((434, 434), os.getppid(), 0), 0, None, 0)  # by pidfd",
    ],
    "read memory and environment of processes of calmctl's user, but not of calmctl and the judge": [
        "assert open('/proc/VICTIM/environ').read()",
        "open('/proc/VICTIM/mem', 'rb').close()",
        "os.readlink('/proc/VICTIM/fd/0')",
    ],
    "start threads": [
        "threads = [threading.Thread(target=print) for _ in range(3)]\nfor t in threads: t.start(); t.join()"
    ],
    "start more than 1,024 threads (64 under limits alone)": [
        "total = int(open('/proc/loadavg').read().split()[3].split('/')[1]) if os.path.exists('/proc/loadavg') else 0\n"
        "threading.stack_size(2**16); held = threading.Event(); threads = []\n"
        "try:\n"
        "    while len(threads) < total + NUM_THREADS + 200:\n"
        "        threads.append(threading.Thread(target=held.wait)); threads[-1].start()\n"
        "finally:\n"
        "    held.set()\n"
    ],
    "start processes, and leave some behind if it kills its judge": [
        "child = os.fork()\nif child == 0: os._exit(0)\nos.waitpid(child, 0)",
        "call((57, 220), 17, 0, 0, 0, 0) or os._exit(0)",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.setsid()",
    ],
    "use shared memory, semaphores and queues of the machine": [
        "number = call((29, 194), 0, 4096, 0o1600); call((31, 195), number, 0, None)",
        "number = call((64, 190), 0, 1, 0o1600); call((66, 191), number, 0, 0)",
        "number = call((68, 186), 0, 0o1600); call((71, 187), number, 0, None)",
    ],
    "hold memory in nameless files, beyond its limit": ["os.memfd_create('x')"],
    "queue asynchronous input and output, watch files": [
        "context = ctypes.c_ulong(); call((206, 0), 64, ctypes.byref(context)); call((207, 1), context)",
        "call((294, 26), 0)",
        "call((300, 262), 0x200, 0)",
        "fcntl.fcntl(os.open('/', os.O_RDONLY), 1026, 1)",
    ],
    "keep keys in the kernel": ["call((248, 217), b'user', b'calmctl', b'x', 1, -2)", "call((250, 219), 0, -2, 1)"],
    "trace processes, count their events, load programs into the kernel": [
        "call((101, 117), 0x4206, VICTIM, 0, 0)",
        "call((298, 241), struct.pack('<IIQ', 1, 112, 0) + bytes(96), VICTIM, -1, -1, 0)",
        "call((321, 280), 0, struct.pack('<IIIII', 1, 4, 4, 1, 0) + bytes(100), 120)",
        "call((310, 270), VICTIM, bytes(16), 1, bytes(16), 1, 0)",
        "call((175, 105), b'', 0, b'')",
    ],
    "make namespaces and mounts": [
        "call((272, 97), 0x10000000)",
        "call((308, 268), os.open('/proc/self/ns/net', os.O_RDONLY), 0)",
        "call((165, 40), b'none', b'/tmp', b'tmpfs', 0, 0)",
        "call((430, 430), b'tmpfs', 0)",
        "call((161, 51), b'/')",
    ],
    "handle page faults, use `io_uring`": ["call((323, 282), 1)", "call((425, 425), 1, bytes(120))"],
    "write settings of the machine in `/proc/sys`": [
        "os.close(os.open('/proc/sys/kernel/domainname', os.O_WRONLY))",
        "os.close(os.open('/proc/sys/vm/swappiness', os.O_RDWR))",
        "os.close(os.open('/proc/sysrq-trigger', os.O_WRONLY))",
    ],
    "find environment variables, arguments or input": [
        "import sys; assert [name for name in os.environ if name not in ('LC_CTYPE', 'PWD')] or len(sys.argv) > 1",
        "import sys; assert sys.stdin.read()",
    ],
}

# Makes too many files and waits: ended where somebody counts them.
FLOOD = (
    "import os, time\nfor n in range(1500): open(f'{n}', 'w').close()\n"
    "for n in range(1500): os.mkdir(str(n) + 'x'); os.chdir(str(n) + 'x')\ntime.sleep(0.3)\ndef f(): return 1"
)


def program(**words: object) -> str:
    """Return a program that makes all attempts and whose `outcomes` says which lines are true."""
    parts = [PRELUDE, "outcomes = {}"]
    for line, attempts in ATTEMPTS.items():
        parts.append(f"outcomes[{line!r}] = []")
        for attempt in attempts:
            body = "".join(f"    {row}\n" for row in attempt.splitlines())
            parts.append(f"def attempt():\n{body}if possible(attempt): outcomes[{line!r}].append({attempt!r})")
    text = "\n".join(parts)
    for word, value in words.items():
        text = text.replace(word, str(value))
    return text
