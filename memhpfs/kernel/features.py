"""Differences between kernel releases, as rows: a release is a set of features, never a version compared in code.

Source: kernel-behaviour of 6.1 to 7.3 and transcripts old-*, plain, new-*.
"""

from attrs import evolve, frozen

from memhpfs.kernel.spec import OnlineType, Spec

__all__ = ["OPTIONAL_FILES", "RELEASES", "Features", "features_of"]


@frozen
class Features:
    """What one kernel does and which files it has.

    Attributes:
        bool_enable_words: kstrtobool knows `e` and `d`.
        node_added_first: the uevent of a new node comes before those of its blocks.
        poison_blocks_online: a block with poisoned pages refuses to go online.
        hard_offline_outside_busy: hard_offline_page beyond all memory is EBUSY, not ENXIO.
        lseek_gone: lseek on a file of a removed device fails.
        removed_nlink_zero: fstat of a removed file gives nlink 0.
        memmap_force: memmap_on_memory knows `force`.
        memmap_single_block: only an add of exactly one block may host its own memmap.
        node_reclaim: nodes have a `reclaim` file.
        kswapd_on_node: the thread kswapd of a node takes its memory from that node.
        page_dump_pointer: the dump of a page begins with its address.
        default_online: auto_online_blocks where the command line is silent.
        probe and all below: optional files.
    """

    release: str = "6.12"
    bool_enable_words: bool = False
    node_added_first: bool = False
    poison_blocks_online: bool = True
    hard_offline_outside_busy: bool = False
    lseek_gone: bool = True
    removed_nlink_zero: bool = False
    memmap_force: bool = True
    memmap_single_block: bool = False
    node_reclaim: bool = False
    kswapd_on_node: bool = False
    page_dump_pointer: bool = False
    default_online: OnlineType = OnlineType.OFFLINE
    probe: bool = False
    page_offline: bool = True
    crash_hotplug: bool = True
    numa: bool = True
    memory_failure: bool = True
    pm_advanced: bool = True
    modules: bool = True
    sgx: bool = True


_V6_12 = Features(default_online=OnlineType.ONLINE)
_V6_6 = evolve(_V6_12, release="6.6", default_online=OnlineType.OFFLINE, page_dump_pointer=True)
_V6_1 = evolve(
    _V6_6, release="6.1", poison_blocks_online=False, lseek_gone=False, memmap_force=False, memmap_single_block=True,
    crash_hotplug=False, memory_failure=False,
)
_V6_18 = evolve(_V6_12, release="6.18", bool_enable_words=True, node_reclaim=True, kswapd_on_node=True)
_V7_3 = evolve(
    _V6_18, release="7.3", node_added_first=True, hard_offline_outside_busy=True, removed_nlink_zero=True
)

RELEASES: dict[str, Features] = {row.release: row for row in (_V6_1, _V6_6, _V6_12, _V6_18, _V7_3)}

#: Names that a machine file's `with` and `without` take, and the feature each switches.
OPTIONAL_FILES: dict[str, str] = {
    "probe": "probe",
    "page-offline": "page_offline",
    "crash-hotplug": "crash_hotplug",
    "numa": "numa",
    "memory-failure": "memory_failure",
    "pm-advanced-debug": "pm_advanced",
    "modules": "modules",
    "sgx": "sgx",
}


def features_of(spec: Spec) -> Features:
    """The features of a machine: its release's row, with its optional files switched."""
    switched = {OPTIONAL_FILES[name]: True for name in spec.with_files}
    switched |= {OPTIONAL_FILES[name]: False for name in spec.without_files}
    return evolve(RELEASES[spec.release], **switched)  # type: ignore[arg-type]
