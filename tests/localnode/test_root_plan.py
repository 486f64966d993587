from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.localnode.root_plan import Mount, MountPlanError, Operation, RootLayout, plan_root

TREE = {
    "/": "bin dev etc home opt proc root run sys tmp usr var",
    "/bin": "-> usr/bin",
    "/dev": "null shm",
    "/dev/null": "",
    "/dev/shm": " ",
    "/etc": "hosts",
    "/etc/hosts": "",
    "/home": "user",
    "/home/user": "alias venv secret",
    "/home/user/alias": "-> venv",
    "/home/user/venv": "bin",
    "/home/user/venv/bin": " ",
    "/home/user/secret": "",
    "/opt": "a link",
    "/opt/a": " ",
    "/opt/link": "-> a",
    "/proc": " ",
    "/root": " ",
    "/run": "lock",
    "/run/lock": " ",
    "/sys": " ",
    "/tmp": "x",
    "/tmp/x": "",
    "/usr": "bin",
    "/usr/bin": " ",
    "/var": "run tmp",
    "/var/run": "-> /run",
    "/var/tmp": " ",
    "/vol": "sub",
    "/vol/sub": " ",
    "/file": "",
}


class Tree:
    """A machine's files, as the plan asks for them."""

    def kind(self, path: str) -> str | None:
        content = TREE.get(posixpath.normpath(path))
        if content is None:
            return None
        return "link" if content.startswith("->") else "dir" if content else "file"

    def names(self, path: str) -> list[str]:
        return TREE[path].split()

    def target(self, path: str) -> str:
        return TREE[path].removeprefix("-> ")


PRIVATE = ("/tmp", "/var/tmp", "/home/user")


def plan(*mounts: Mount, read_only_root: bool = False, exposed: tuple[str, ...] = ()) -> list[Operation]:
    layout = RootLayout(mounts, private=PRIVATE, exposed=exposed, read_only_root=read_only_root)
    return plan_root(layout, Tree())


def at(operations: list[Operation], path: str) -> list[Operation]:
    return [operation for operation in operations if operation[1] == path]


def test_the_machine_s_tree_is_shown_read_only() -> None:
    operations = plan()
    assert at(operations, "/usr") == [("dir", "/usr", "0755"), ("bind", "/usr", "/usr", "ro")]
    assert at(operations, "/bin") == [("link", "/bin", "usr/bin")]
    writable = [op for op in operations if op[0] == "bind" and op[3] == "rw"]
    assert {op[1] for op in writable} <= {"/dev/null", "/dev/pts"}


def test_private_directories_are_empty_but_for_what_is_exposed() -> None:
    operations = plan(exposed=("/home/user/venv",))
    assert ("tmpfs", "/home/user", "0755", "") in operations
    assert at(operations, "/home/user/venv")[-1] == ("bind", "/home/user/venv", "/home/user/venv", "ro")
    assert not at(operations, "/home/user/secret")
    assert not at(operations, "/tmp/x")


def test_an_exposed_link_shows_what_it_points_to_under_its_own_name() -> None:
    operations = plan(exposed=("/home/user/alias",))
    assert at(operations, "/home/user/alias") == [
        ("dir", "/home/user/alias", "0755"),
        ("bind", "/home/user/alias", "/home/user/venv", "ro"),
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(
            "/stowage/bin",
            [
                ("dir", "/stowage", "0755"),
                ("dir", "/stowage/bin", "0755"),
                ("bind", "/stowage/bin", "/vol", "rw"),
            ],
            id="a new directory is made on the root's tmpfs",
        ),
        pytest.param(
            "/opt/new",
            [
                ("tmpfs", "/opt", "0755", ""),
                ("dir", "/opt/a", "0755"),
                ("bind", "/opt/a", "/opt/a", "ro"),
                ("link", "/opt/link", "a"),
                ("dir", "/opt/new", "0755"),
                ("bind", "/opt/new", "/vol", "rw"),
            ],
            id="a directory of the machine that lacks the mount point is mirrored",
        ),
        pytest.param("/opt/a", [("bind", "/opt/a", "/vol", "rw")], id="an existing directory is covered"),
        pytest.param("/opt/link", [("bind", "/opt/a", "/vol", "rw")], id="a symbolic link is followed"),
        pytest.param(
            "/var/run/secrets",
            [
                ("tmpfs", "/run", "0755", ""),
                ("dir", "/run/lock", "0755"),
                ("bind", "/run/lock", "/run/lock", "ro"),
                ("dir", "/run/secrets", "0755"),
                ("bind", "/run/secrets", "/vol", "rw"),
            ],
            id="a link on the way is followed too",
        ),
        pytest.param("/dev/shm", [("bind", "/dev/shm", "/vol", "rw")], id="shared memory"),
        pytest.param("/tmp", [("bind", "/tmp", "/vol", "rw")], id="a private directory is covered"),
        pytest.param(
            "/stowage/../opt/a/", [("bind", "/opt/a", "/vol", "rw")], id="a path that is not normal"
        ),
    ],
)
def test_mount_points(target: str, expected: list[Operation]) -> None:
    added = [op for op in plan(Mount("/vol", target)) if op not in plan()]
    assert added == expected


def test_a_file_is_mounted_on_a_file() -> None:
    operations = plan(Mount("/file", "/dev/termination-log"))
    assert at(operations, "/dev/termination-log") == [
        ("file", "/dev/termination-log"),
        ("bind", "/dev/termination-log", "/file", "rw"),
    ]


def test_outer_mounts_come_before_inner_ones() -> None:
    operations = plan(Mount("/vol", "/s/outer/deep"), Mount("/vol", "/s/outer"))
    binds = [op[1] for op in operations if op[0] == "bind" and op[2] == "/vol"]
    assert binds == ["/s/outer", "/s/outer/deep"]
    assert ("dir", "/s/outer/deep", "0755") in operations


def test_a_directory_that_the_outer_volume_has_is_not_made_again() -> None:
    operations = plan(Mount("/vol", "/s"), Mount("/usr", "/s/sub"))
    assert not [op for op in at(operations, "/s/sub") if op[0] == "dir"]


def test_a_shallow_mirror_does_not_hide_a_deeper_mount() -> None:
    operations = plan(Mount("/vol", "/opt/a/new"), Mount("/vol", "/opt/b/c/d"))
    mirrors = [op[1] for op in operations if op[0] == "tmpfs" and op[1].startswith("/opt")]
    assert mirrors == ["/opt", "/opt/a"]
    assert operations.index(("tmpfs", "/opt/a", "0755", "")) < operations.index(
        ("bind", "/opt/a/new", "/vol", "rw")
    )


def test_a_volume_on_the_place_of_a_tmpfs_stays_writable_below_a_read_only_root() -> None:
    operations = plan(Mount("/vol", "/tmp"), read_only_root=True)
    assert ("bind", "/tmp", "/vol", "rw") in operations
    assert ("seal", "/tmp") not in operations


def test_a_read_only_root_seals_everything_but_volumes_and_devices() -> None:
    sealed = {op[1] for op in plan(Mount("/vol", "/opt/new"), read_only_root=True) if op[0] == "seal"}
    assert sealed == {"/", "/home/user", "/opt", "/tmp", "/var/tmp"}
    assert not [op for op in plan(Mount("/vol", "/opt/new")) if op[0] == "seal"]


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        pytest.param(Mount("/nothing", "/a"), "/nothing does not exist", id="a source that is not there"),
        pytest.param(Mount("/vol", "/proc/x"), "nothing can be mounted there", id="a target in /proc"),
        pytest.param(Mount("/vol", "/"), "nothing can be mounted there", id="the root itself"),
    ],
)
def test_impossible_mounts_are_named(mount: Mount, sentence: str) -> None:
    with pytest.raises(MountPlanError, match=sentence):
        plan(mount)


PATHS = st.lists(
    st.sampled_from(["opt", "a", "new", "home", "user", "usr", "bin", "x"]), min_size=1, max_size=4
).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS, max_size=4, unique=True), st.booleans())
def test_every_mount_is_made_on_something_that_was_made_before(targets: list[str], sealed: bool) -> None:
    operations = plan(*(Mount("/vol", target) for target in targets), read_only_root=sealed)
    binds = [op for op in operations if op[0] == "bind" and op[2] == "/vol"]
    assert len(binds) == len(targets)
    writes = [op for op in operations if op[0] in ("dir", "file", "link")]
    covers: list[tuple[str, str]] = []
    for operation in operations:
        if operation[0] in ("tmpfs", "bind"):
            covers.append((operation[1], operation[0] if operation[0] == "tmpfs" else operation[2]))
        elif operation in writes:
            above = [kind for path, kind in covers if operation[1].startswith(path.rstrip("/") + "/")]
            assert above, operation
            assert above[-1] in ("tmpfs", "/vol"), f"{operation} would write to the machine's own root"
