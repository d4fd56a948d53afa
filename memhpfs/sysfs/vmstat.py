"""/proc/vmstat, and the names of all counters.

Of events the model counts those of migration, huge pages and balloons; others stay 0.
Source: vmstat_text, vmstat_show (mm/vmstat.c); enum zone_stat_item, node_stat_item (include/linux/mmzone.h) and
vm_event_item (include/linux/vm_event_item.h) of 6.1, 6.12 and 7.3; /proc/vmstat of 6.18.
"""

from memhpfs.kernel.directmap import TEXT_SPLITS
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.stats import machine_stats, system_items
from memhpfs.sysfs.items import names_of

__all__ = ["NODE_ITEMS", "NUMA_ITEMS", "ZONE_ITEMS", "vmstat_show"]

ZONE_ITEMS = """
nr_free_pages
nr_free_pages_blocks | 6.18 7.3
nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file nr_zone_unevictable
nr_zone_write_pending nr_mlock
nr_bounce | 6.1 6.6 6.12
nr_zspages nr_free_cma
nr_unaccepted | 6.6 6.12 6.18 7.3 x86_64
"""

NUMA_ITEMS = """
numa_hit numa_miss numa_foreign numa_interleave numa_local numa_other | numa
"""

NODE_ITEMS = """
nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable
nr_slab_reclaimable nr_slab_unreclaimable nr_isolated_anon nr_isolated_file
workingset_nodes workingset_refault_anon workingset_refault_file workingset_activate_anon workingset_activate_file
workingset_restore_anon workingset_restore_file workingset_nodereclaim
nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback
nr_writeback_temp | 6.1 6.6 6.12
nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_file_hugepages nr_file_pmdmapped nr_anon_transparent_hugepages
nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written nr_throttled_written nr_kernel_misc_reclaimable
nr_foll_pin_acquired nr_foll_pin_released
nr_vmalloc | 7.3
nr_kernel_stack nr_page_table_pages nr_sec_page_table_pages
nr_iommu_pages | 6.12 6.18 7.3
nr_swapcached
pgpromote_success pgpromote_candidate | numa
pgpromote_candidate_nrl | 6.18 7.3 numa
pgdemote_kswapd pgdemote_direct pgdemote_khugepaged | 6.12 6.18 7.3
pgdemote_proactive | 6.18 7.3
pgsteal_kswapd pgsteal_direct pgsteal_khugepaged pgsteal_proactive pgsteal_anon pgsteal_file | 7.3
pgscan_kswapd pgscan_direct pgscan_khugepaged pgscan_proactive pgscan_anon pgscan_file | 7.3
pgrotate_anon pgrotate_file pgrefill | 7.3
nr_hugetlb nr_balloon_pages nr_kernel_file_pages | 6.18 7.3
nr_gpu_active nr_gpu_reclaim | 7.3
"""

_SYSTEM_ITEMS = """
nr_dirty_threshold nr_dirty_background_threshold
nr_memmap_pages nr_memmap_boot_pages | 6.12 6.18 7.3
"""

_EVENTS = """
pgpgin pgpgout pswpin pswpout pgalloc_{zone} allocstall_{zone} pgskip_{zone}
pgfree pgactivate pgdeactivate pglazyfree pgfault pgmajfault pglazyfreed
pgrefill | 6.1 6.6 6.12 6.18
pgreuse
pgsteal_kswapd pgsteal_direct | 6.1 6.6 6.12 6.18
pgsteal_khugepaged | 6.6 6.12 6.18
pgsteal_proactive | 6.18
pgdemote_kswapd pgdemote_direct | 6.1 6.6
pgdemote_khugepaged | 6.6
pgscan_kswapd pgscan_direct | 6.1 6.6 6.12 6.18
pgscan_khugepaged | 6.6 6.12 6.18
pgscan_proactive | 6.18
pgscan_direct_throttle
pgscan_anon pgscan_file pgsteal_anon pgsteal_file | 6.1 6.6 6.12 6.18
zone_reclaim_success | 6.12 6.18 7.3 numa
zone_reclaim_failed | numa
pginodesteal slabs_scanned kswapd_inodesteal kswapd_low_wmark_hit_quickly kswapd_high_wmark_hit_quickly pageoutrun
pgrotated drop_pagecache drop_slab oom_kill
numa_pte_updates numa_huge_pte_updates numa_hint_faults numa_hint_faults_local numa_pages_migrated | numa
pgmigrate_success pgmigrate_fail thp_migration_success thp_migration_fail thp_migration_split
compact_migrate_scanned compact_free_scanned compact_isolated compact_stall compact_fail compact_success
compact_daemon_wake compact_daemon_migrate_scanned compact_daemon_free_scanned
htlb_buddy_alloc_success htlb_buddy_alloc_fail
cma_alloc_success cma_alloc_fail | cma
unevictable_pgs_culled unevictable_pgs_scanned unevictable_pgs_rescued unevictable_pgs_mlocked
unevictable_pgs_munlocked unevictable_pgs_cleared unevictable_pgs_stranded
thp_fault_alloc thp_fault_fallback thp_fault_fallback_charge thp_collapse_alloc thp_collapse_alloc_failed
thp_file_alloc thp_file_fallback thp_file_fallback_charge thp_file_mapped thp_split_page thp_split_page_failed
thp_deferred_split_page
thp_underused_split_page | 6.12 6.18 7.3
thp_split_pmd thp_scan_exceed_none_pte thp_scan_exceed_swap_pte thp_scan_exceed_share_pte
thp_split_pud | x86_64
thp_zero_page_alloc thp_zero_page_alloc_failed thp_swpout thp_swpout_fallback
balloon_inflate balloon_deflate balloon_migrate swap_ra swap_ra_hit
swpin_zero swpout_zero | 6.12 6.18 7.3
ksm_swpin_copy cow_ksm zswpin zswpout
zswpwb | 6.12 6.18 7.3
direct_map_level2_splits direct_map_level3_splits | x86_64
direct_map_level2_collapses direct_map_level3_collapses | 6.18 7.3 x86_64
nrswpin nrswpout | 7.3
nr_unstable
"""


def vmstat_show(kernel: Kernel) -> str:
    """The text of /proc/vmstat."""
    machine = machine_stats(kernel)
    values = machine.items | system_items(kernel, machine) | kernel.events | {"direct_map_level2_splits": TEXT_SPLITS}
    tables = (ZONE_ITEMS, NUMA_ITEMS, NODE_ITEMS, _SYSTEM_ITEMS, _EVENTS)
    return "".join(f"{name} {values.get(name, 0)}\n" for table in tables for name in names_of(table, kernel))
