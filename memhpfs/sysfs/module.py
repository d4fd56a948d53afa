"""The rows of /sys/module/memory_hotplug.

Source: the module_param calls of mm/memory_hotplug.c, kernel/params.c; transcripts params.*.
"""

from typing import Any

from memhpfs.kernel.spec import MemmapMode, OnlinePolicy
from memhpfs.kernel.state import Kernel
from memhpfs.parse import kstrtobool, kstrtoull, match_word
from memhpfs.sysfs.attr import Attr, Dir, has
from memhpfs.sysfs.uevent import module_uevent_store

__all__ = ["MODULE_DIR"]

_POLICIES = {item.value: item for item in OnlinePolicy}
_UINT_MAX = (1 << 32) - 1


def _policy_show(kernel: Kernel, subject: Any) -> str:
    return kernel.params.online_policy.value + "\n"


def _policy_store(kernel: Kernel, subject: Any, text: str) -> None:
    kernel.params.online_policy = match_word(text, _POLICIES)


def _ratio_show(kernel: Kernel, subject: Any) -> str:
    return f"{kernel.params.auto_movable_ratio}\n"


def _ratio_store(kernel: Kernel, subject: Any, text: str) -> None:
    kernel.params.auto_movable_ratio = kstrtoull(text, limit=_UINT_MAX)


def _numa_aware_show(kernel: Kernel, subject: Any) -> str:
    return "Y\n" if kernel.params.auto_movable_numa_aware else "N\n"


def _numa_aware_store(kernel: Kernel, subject: Any, text: str) -> None:
    kernel.params.auto_movable_numa_aware = kstrtobool(text, enable_words=kernel.features.bool_enable_words)


def _memmap_show(kernel: Kernel, subject: Any) -> str:
    mode: MemmapMode = kernel.params.memmap_on_memory
    return mode.value + "\n"


MODULE_DIR = Dir("memory_hotplug", (
    Attr("uevent", 0o200, None, module_uevent_store, "store_uevent", counted=True, when=has("modules")),
    Dir("parameters", (
        Attr("online_policy", 0o644, _policy_show, _policy_store, "get_online_policy, set_online_policy"),
        Attr("auto_movable_ratio", 0o644, _ratio_show, _ratio_store, "param_ops_uint"),
        Attr("auto_movable_numa_aware", 0o644, _numa_aware_show, _numa_aware_store, "param_ops_bool", when=has("numa")),
        Attr("memmap_on_memory", 0o444, _memmap_show, source="get_memmap_mode; registered without a write bit"),
    )),
))
