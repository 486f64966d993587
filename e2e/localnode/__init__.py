"""A node that runs pods as local processes: a test tool that is honest about what it is (README.md).

One asyncio process plays any number of Node objects and really runs the pods that the real scheduler binds to
them. It does exactly what the project's rendered pods and tests use; any other pod field makes the pod fail
loudly. It must never run a command for an image that is not on the allow-list, and never leave a process
behind.
"""
