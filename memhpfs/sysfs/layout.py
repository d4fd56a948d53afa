"""The whole tree in one literal: which rows stand where.  DIR of a mount is its root."""

from memhpfs.sysfs.attr import Dir
from memhpfs.sysfs.bus import bus_dir
from memhpfs.sysfs.debug import DEBUG_DIR
from memhpfs.sysfs.memory import BLOCK_DIR, MEMORY_DIR
from memhpfs.sysfs.module import MODULE_DIR
from memhpfs.sysfs.node import NODE_DIR, NODE_ROOT_DIR
from memhpfs.sysfs.proc import PROC_DIR

__all__ = ["BLOCK_DIR", "MACHINE_DIR", "NODE_DIR"]

MACHINE_DIR = Dir("", (
    Dir("sys", (
        Dir("devices", (Dir("system", (MEMORY_DIR, NODE_ROOT_DIR)),)),
        Dir("bus", (bus_dir("memory"), bus_dir("node"))),
        Dir("module", (MODULE_DIR,)),
        Dir("kernel", (DEBUG_DIR,)),
    )),
    PROC_DIR,
))
