"""Runs program.py of the working directory under limits, and writes what became of it to standard output.

Arguments: seconds of CPU, bytes of memory, bytes a file. Standard input: the word that stands for success. The limits and the
hook keep a program from harm that it does by accident; they are no sandbox against one that is written to break out.
"""
import os
import resource
import sys

FORBIDDEN = (
    "ctypes.", "os.chmod", "os.chown", "os.exec", "os.fork", "os.kill", "os.link", "os.mkdir", "os.posix_spawn",
    "os.putenv", "os.remove", "os.rename", "os.rmdir", "os.setxattr", "os.spawn", "os.startfile", "os.symlink",
    "os.system", "os.truncate", "os.utime", "pty.spawn", "shutil.", "signal.pthread_kill", "socket.",
    "subprocess.Popen", "syslog.",
)
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def hook(event, arguments):
    if event.startswith(FORBIDDEN):
        raise PermissionError(event + " is not allowed here")
    if event == "open" and arguments[2] & WRITE:
        raise PermissionError("writing files is not allowed here")


def main():
    cpu, memory, size = map(int, sys.argv[1:4])
    success = sys.stdin.readline()
    with open("program.py", encoding="utf-8") as file:
        source = file.read()
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if sys.platform != "darwin":  # where the system does not know it
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.write(out, b"begun\n")
    sys.addaudithook(hook)
    try:
        exec(compile(source, "program.py", "exec"), {"__name__": "program"})
    except BaseException as error:
        said = type(error).__name__ + ": " + str(error)
        os.write(out, said[:500].encode("utf-8", "replace"))
    else:
        os.write(out, success.encode())
    os._exit(0)


main()
