"""Machine files: every kind of mistake, the presets, and what a file comes to."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import fields

import memhpfs
from memhpfs.errors import UserError
from memhpfs.machine.file import DimmTable, MachineFile, NodeTable, RamTable, TimingTable, WorkloadTable
from memhpfs.machine.load import explanation, load, preset_names, source_text
from memhpfs.qmp.power_on import power_on
from memhpfs.units import GIB, MIB, TIB, format_size, parse_size

RAM = '[[ram]]\nstart = 0\nend = "1G"\n'


@pytest.mark.parametrize(("text", "told"), [
    ('kernal = "6.1"', "kernal: unknown key; did you mean 'kernel'?"),
    ("kernel = 6.1", "kernel: must be a string, not 6.1; put it in quotes"),
    ('kernel = "5.4"', "kernel: '5.4' is not known; allowed are 6.1, 6.6, 6.12, 6.18, 7.3; the nearest is 6.1"),
    ("kernel = 6.10", "kernel: must be a string, not 6.10; put it in quotes: kernel = \"6.10\""),
    ("kernel = 6.12\nram = 6G", "line 2: ram = 6G: put it in quotes: ram = \"6G\""),
    ("slots = 4x", "not TOML: Expected newline or end of document"),
    ("ram = 6G\"", "not TOML: Expected newline or end of document"),
    ("foo bar", "not TOML: Expected '=' after a key"),
    ('ram = "0.1K"', "ram: '0.1K' does not come to whole bytes; K, M, G and T are powers of 1024"),
    ('arch = "x86-64"', "arch: 'x86-64' is not known; allowed are x86_64; did you mean 'x86_64'?"),
    ("cmdline = 5", "cmdline: must be a string, not 5"),
    ('cmdline = "a\\nb"', "cmdline: must be one line without control characters"),
    ("ram = -1", "ram: -1 is negative"),
    ("ram = 0", "ram: 0 is too little for a kernel; at least 256M"),
    ('ram = "1000000000T"', "ram: '1000000000T' is too large; sizes are below 2^64"),
    (f'ram = "0x{"f" * 5000}"', f"ram: '0x{'f' * 57} is not a size"),
    (f"slots = {'9' * 5000}", "not TOML: a number has too many digits"),
    (f"timing = {{migration-rate = 0x{'f' * 5000}}}", "timing.migration-rate: a number in TOML has at most 64 bits"),
    (f'kernel = "{"6" * 5000}"', f"kernel: '{'6' * 59} is not known; allowed are 6.1, 6.6"),
    (f"{'x' * 5000} = 1", f"'{'x' * 59}: unknown key (known: arch, block-size, cmdline"),
    ('"a\\nb" = 1', "'a\\nb': unknown key (known: "),
    ('ram = "lots"', "ram: 'lots' is not a size; allowed are an integer, a number with K, M, G or T, or 0x-hex"),
    ('ram = "100T"', "ram: ends at 0x640040000000, beyond the addressable 64T"),
    ('ram = "64M"', "ram: 64M is too little for a kernel; at least 256M"),
    ("ram = 1073741825", "ram: 1073741825 bytes of node 0 are not whole MiB"),
    ("slots = 300", "slots: 300 must be between 0 and 256"),
    ('slots = "4"', "slots: must be an integer, not '4'"),
    ("slots = true", "slots: must be an integer, not true"),
    ('ram = "4G"\nmaxmem = "1G"', "maxmem: 1G is less than the boot RAM, 4G"),
    ('block-size = "3M"', "block-size: 3M must be a power of two from 128M to 64G"),
    ("hotplug-base = 5", "hotplug-base: 0x5 must lie above boot RAM and below 64T, on a multiple of the block size"),
    ("hotplug-base = '64T'", "hotplug-base: 0x400000000000 must lie above boot RAM and below 64T"),
    ("hotplug-base = 0x140000001", "hotplug-base: 0x140000001 must lie above boot RAM"),
    ('without = ["foo"]', "without[0]: 'foo' is not known; allowed are probe, page-offline, crash-hotplug, numa"),
    ('with = ["sgx"]\nwithout = ["sgx"]', "with[0]: 'sgx' stands in both with and without"),
    ('without = "probe"', "without: must be an array of strings, not 'probe'"),
    ("node = 5", "node: must be an array"),
    ("[[node]]\nidd = 0", "node[0].idd: unknown key; did you mean 'id'?"),
    ("[[node]]\ncpus = '0'", "node[0].id: is missing"),
    ("[[node]]\nid = 0\n[[node]]\nid = 0", "node[1].id: node 0 is there already"),
    ("[[node]]\nid = 5000", "node[0].id: 5000 must be between 0 and 1023"),
    ("[[node]]\nid = 0\ncpus = 'x'", "node[0].cpus: 'x' is not a list of CPUs; allowed is e.g. \"0-3,8\""),
    ("[[node]]\nid = 0\ncpus = '0-1'\n[[node]]\nid = 1\ncpus = '1'", "node[1].cpus: cpu 1 belongs to node 0 already"),
    ("[[node]]\nid = 0\ndistances = [10, 20]", "node[0].distances: must have one number for each of the 1 nodes"),
    ("[[node]]\nid = 0\nram = 0\n[[node]]\nid = 1\nram = 0", "ram: 0 is too little for a kernel; at least 256M"),
    ("ram = '3G'\n[[node]]\nid = 0\nram = '1G'", "ram: 3G is not what the nodes add up to, 1G"),
    (RAM + "[[node]]\nid = 0\nram = '1G'", "ram: give either [[ram]] ranges, or sizes with ram = and [[node]] ram ="),
    ("[[ram]]\nstart = 5\nend = 1", "ram[0].end: 0x1 must lie above start 0x5"),
    (RAM + "[[ram]]\nstart = '512M'\nend = '2G'", "ram: 0x0-0x40000000 overlaps 0x20000000-0x80000000"),
    (RAM + "node = 4", "ram[0].node: node 4 has no [[node]]; known are [0]"),
    (RAM + "kind = 'soft'", "ram[0].kind: 'soft' is not known; allowed are normal, movable, reserved, unmovable, cma"),
    ("[[ram]]\nstart = 0\nend = '1G'\nkind = 'cma'",
     "ram[0].start: 0x0 must be 0x100000 or more for cma: firmware keeps the first MiB"),
    ("[[ram]]\nstart = 0\nend = '1G'\nkind = 'reserved'",
     "ram: the ranges of kind normal and movable hold less than 16M, too little for a kernel"),
    ("[[ram]]\nstart = '100T'\nend = '101T'", "ram: ends at 0x650000000000, beyond the addressable 64T"),
    ("maxmem = '64T'", "maxmem: 64T does not fit below the addressable 64T"),
    ("dimm = {id = 'd'}", "dimm: must be an array of tables; write [[dimm]]"),
    ("[ram]\nsize = '1G'", "ram: must be an array of tables; write [[ram]]"),
    ("node = [1]", "node[0]: must be a table, not 1"),
    ("[[dimm]]\nid = 'd'\nsize = '100M'", "dimm[0].size: 100M must be a multiple of the block size, 128M"),
    ("[[dimm]]\nid = '5 d'\nsize = '1G'", "dimm[0].id: '5 d' must be letters, digits, '-', '.' and '_', and "),
    ("dimm = [{id = 'd', size = '1G'}, {id = 'd', size = '1G'}]", "dimm[1].id: 'd' is there already"),
    ("[[dimm]]\nid = 'd'", "dimm[0].size: is missing"),
    ("[[dimm]]\nid = 'd'\nsize = '100G'", "dimm[0].size: 100G does not fit below maxmem; raise maxmem"),
    ("[[dimm]]\nid = 'd'\nsize = '1G'\nnode = 3", "dimm[0].node: node 3 has no [[node]]"),
    ("slots = 0\n[[dimm]]\nid = 'd'\nsize = '1G'", "dimm: 1 DIMMs for 0 slots; raise slots"),
    ("[[virtio-mem]]\nid = 'v'", "virtio-mem: this version does not have virtio-mem devices"),
    ("[timing]\nmigration-rate = 'fast'", "timing.migration-rate: 'fast' is not a size"),
    ("[timing]\nspeed = 1", "timing.speed: unknown key (known: migration-rate)"),
    ("[[workload]]\nid = 'w'\nkind = 'anonymous'\nsize = 1",
     "workload[0].kind: 'anonymous' is not known; allowed are anon"),
    ("[[workload]]\nid = 'w'\nkind = 'anon'", "workload[0]: give either size or share"),
    ("[[workload]]\nid = 'w'\nkind = 'anon'\nshare = '120%'", "workload[0].share: '120%' is not a share"),
    ("[[workload]]\nid = 'w'\nkind = 'anon'\nsize = 1\nmovable = true", "workload[0].movable: anon cannot be movable"),
    ("[[workload]]\nid = 'w'\nkind = 'anon'\nsize = 1\nreserved = true",
     "workload[0].reserved: anon cannot be reserved; only hugetlb-2M can"),
    ("x = = 1", "not TOML: Invalid value (at line 1, column 5)"),
    ("a = " + "[" * 3000, "not TOML: "),
])
def test_mistake_is_told(tmp_path, text, told):
    """File, key, value, what is allowed, and the nearest known key, in one line; exit code 2."""
    file = tmp_path / "mine.toml"
    file.write_text(text)

    with pytest.raises(UserError) as error:
        load(str(file))

    assert str(error.value).startswith(f"{file}: {told}")
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_what_is_no_file(tmp_path):
    """Not there, a directory, not UTF-8: one line each."""
    (tmp_path / "bytes.toml").write_bytes(b"\xff")

    for name, told in ((tmp_path / "none.toml", "is neither a file nor a preset; presets are default, auto-movable"),
                       (tmp_path, "Is a directory"), (tmp_path / "bytes.toml", "not UTF-8 at byte 0"),
                       ("a\0b", "is no file name")):
        with pytest.raises(UserError, match=told) as error:
            load(str(name))
        assert error.value.exit_code == 2


def told_of(tmp_path: Path, text: str) -> list[str]:
    """The mistakes of a file, without its name."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load(str(file))
    assert all(line.startswith(f"{file}: ") for line in error.value.lines)
    return [line.removeprefix(f"{file}: ") for line in error.value.lines]


def test_all_mistakes_are_told_at_once(tmp_path):
    """Missing quotes, unknown keys, wrong types, and what does not fit together."""
    told = told_of(tmp_path, """
    kernel = 6.12
    ram = 6G                # gigabytes
    maxmem = "1G"
    rom = "5G"
    cmdline = quiet console=ttyS0,9600
    without = [probe, "numba"]
    slots = 1
    block-size = "3M"
    node = [{id = 0, cpus = "0", distances = [5]}, {id = 0, cpus = "0"}]
    dimm = [{idd = "d", size = "128M"}, {id = "d2", size = 0, node = 4}, {id = "d2", size = 1.5G}]
    [[workload]]
    id = "w"
    kind = "anno"
    movable = True
    """)

    assert [line.split("; allowed")[0].split(" (known")[0] for line in told] == [
        'line 3: ram = 6G: put it in quotes: ram = "6G"',
        'line 6: cmdline = quiet console=ttyS0,9600: put it in quotes: cmdline = "quiet console=ttyS0,9600"',
        'line 7: probe: put it in quotes: "probe"',
        'line 11: size = 1.5G: put it in quotes: size = "1.5G"',
        "line 15: movable = True: write it small: movable = true",
        "rom: unknown key; did you mean 'ram'?",
        'kernel: must be a string, not 6.12; put it in quotes: kernel = "6.12"',
        "dimm[0].idd: unknown key; did you mean 'id'?",
        "without[1]: 'numba' is not known",
        "node[0].distances: must have one number for each of the 2 nodes",
        "node[0].distances: 5 must be between 10 and 255",
        "node[1].id: node 0 is there already",
        "node[1].cpus: cpu 0 belongs to node 0 already",
        "block-size: 3M must be a power of two from 128M to 64G",
        "dimm: 3 DIMMs for 1 slots; raise slots",
        "dimm[1].size: 0 must be a multiple of the block size",
        "dimm[1].node: node 4 has no [[node]]; known are [0]",
        "dimm[2].id: 'd2' is there already",
        "workload[0]: give either size or share",
        "workload[0].kind: 'anno' is not known",
    ]


@pytest.mark.parametrize("text", [
    "ram = 'lots'\nmaxmem = '1G'\nhotplug-base = 1",
    "maxmem = 'lots'\n[[dimm]]\nid = 'd'\nsize = '100G'",
    "maxmmem = '200G'\n[[dimm]]\nid = 'd'\nsize = '100G'",
    "block-size = 5\n[[dimm]]\nid = 'd'\nsize = 5",
    "[[node]]\nidd = 1\n[[dimm]]\nid = 'd'\nsize = '1G'\nnode = 1",
    "node = 5\nram = [{start = 0, end = '1G', node = 3}]",
    f"slots = 'many'\ndimm = [{', '.join(f'{{id = {chr(34)}d{i}{chr(34)}, size = 134217728}}' for i in range(20))}]",
    "kernel = '6'\ncmdline = 'memory_hotplug.memmap_on_memory=force'",
    "[[ram]]\nstart = 5\nend = 1\n[[ram]]\nstart = 0\nend = '1G'",
    "ram = 18446744073709551616\nmaxmem = '1G'",
])
def test_nothing_that_follows_is_told(tmp_path, text):
    """What needs a value that is wrong itself is not checked."""
    assert len(told_of(tmp_path, text)) == 1


@pytest.mark.parametrize(("meant", "nearest"), [
    ("6.13", "6.12"), ("6.10", "6.12"), ("6.2", "6.1"), ("6.9", "6.6"), ("5.15", "6.1"), ("6.17", "6.18"),
    ("7.0", "6.18"), ("9.1", "7.3"), ("v6.12.3", "6.12"), ("6.6-rc1", "6.6"), ("6.99", "6.18"),
])
def test_nearest_release(tmp_path, meant, nearest):
    """By the order in which Linux came out, not by letters; of two that are equally near the older one."""
    assert told_of(tmp_path, f'kernel = "{meant}"')[0].endswith(f"; the nearest is {nearest}")


@pytest.mark.parametrize(("text", "size"), [
    ("1.5G", 1536 * MIB), ("0.5K", 512), ("512MiB", 512 * MIB), ("2gib", 2 * GIB), ("0x10", 16), (" 1T ", TIB),
    ("1.25g", 1280 * MIB), (4096, 4096),
])
def test_size(text, size):
    """K, M, G and T are powers of 1024, with or without iB, also of numbers with a point."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["1.5", "0.1K", ".5G", "1.G", "512MB", "1e3", "1,5G", "-1", "", "G", "1 G", True, 1.5])
def test_what_is_no_size(text):
    """Decimal units are not sizes of memory, nor is anything that comes to a part of a byte."""
    with pytest.raises(ValueError, match=r"is not a size|whole bytes"):
        parse_size(text)


@pytest.mark.parametrize(("size", "text"), [
    (0, "0"), (512, "512"), (128 * MIB, "128M"), (1536 * MIB, "1.5G"), (1280 * MIB, "1.25G"), (1152 * MIB, "1152M"),
    (GIB + 1, "1073741825"), (1 << 63, "8388608T"),
])
def test_size_as_people_write_it(size, text):
    """The shortest that is exact, which can be read again."""
    assert format_size(size) == text
    assert parse_size(text) == size


@pytest.mark.parametrize(("words", "told"), [
    ("movable_nod", ["movable_nod has no effect; did you mean 'movable_node'?"]),
    ("memhp_default_state=onlin", ["memhp_default_state=onlin has no effect: 'onlin' is none of offline, online, "
                                   "online_kernel, online_movable; did you mean 'online'?"]),
    ("memory_hotplug.unknown", ["memory_hotplug.unknown has no effect: there is no such parameter (known: "
                                "online_policy, auto_movable_ratio, auto_movable_numa_aware, memmap_on_memory)"]),
    ("online_policy=auto-movable", ["online_policy=auto-movable has no effect; did you mean "
                                    "'memory_hotplug.online_policy'?"]),
    ("memory_hotplug.auto_movable_ratio=x", ["memory_hotplug.auto_movable_ratio=x has no effect: 'x' is not a number"]),
    ("memory_hotplug.memmap_on_memory=force", ["memory_hotplug.memmap_on_memory=force is read as N: kernel 6.1 has no "
                                               "force"]),
    ("kernelcore=1.5G", ["kernelcore=1.5G is read as kernelcore=1; allowed are e.g. 512M, 0x20000000 and 50%"]),
    ("movablecore", ["movablecore= is read as movablecore=0; allowed are e.g. 512M, 0x20000000 and 50%"]),
    ("kernelcore=mirror", ["kernelcore=mirror has no effect: the machine has no mirrored memory"]),
    ("movable_node=0", ["movable_node=0 turns it on whatever the value; leave the word out to have it off"]),
    ("hugetlb_free_vmemmap=maybe", ["hugetlb_free_vmemmap=maybe has no effect: 'maybe' is not a truth value"]),
    ("mem=2G", ["mem=2G has no effect here; write ram = in the machine file"]),
    ("movable-node kernelcore=50% movablecore=0x1000 memhp-default-state=online hugetlb_free_vmemmap=on", []),
    ("memory_hotplug.online_policy=auto-movable memory_hotplug.memmap_on_memory=Y", []),
    ("console=ttyS0,115200 quiet ro root=/dev/vda1 mem_sleep_default=s2idle memtest=4 numa_balancing=enable nokaslr "
     "transparent_hugepage=never memory_corruption_check=1 hugetlb_cma=1G mminit_loglevel=4 module.sig_enforce", []),
    ("quiet -- movable_nod", []),
])
def test_remarks_on_the_command_line(tmp_path, words, told):
    """Words about memory without effect and their near neighbours; never other words, nor what init is told."""
    file = tmp_path / "mine.toml"
    file.write_text(f"kernel = '6.1'\ncmdline = '{words}'")

    assert list(load(str(file)).remarks) == told


@pytest.mark.parametrize("name", preset_names())
def test_presets_give_no_reason_for_remarks(name):
    """What the presets say has an effect."""
    assert load(name).remarks == ()


@pytest.mark.parametrize(("override", "told"), [("foo", "--set foo: must be KEY=VALUE"), ("=1", "must be KEY=VALUE"),
                                                ("foo=1", "foo: unknown key"),
                                                ("slots=many", "slots: must be an integer, not 'many'"),
                                                ("slots=", "slots: must be an integer, not ''"),
                                                ("slots=1\nram=5", "slots: must be an integer, not "),
                                                ("timing.migration-rate=1", "timing.migration-rate: unknown key"),
                                                (f"slots={'9' * 5000}", "slots: must be an integer, not '9999")])
def test_mistake_in_an_override(override, told):
    """The line names --set, whichever of several it is."""
    for overrides in ([override], [override, "ram=2G"], ["ram=2G", override]):
        with pytest.raises(UserError) as error:
            load("default", overrides)
        assert told in str(error.value)
        assert f"--set {override}" in str(error.value)
        assert error.value.exit_code == 2


@pytest.mark.parametrize(("override", "check"), [
    ("kernel=6.1", lambda machine: machine.spec.release == "6.1"),
    ("slots=4", lambda machine: machine.slots == 4),
    ("cmdline=movable_node quiet", lambda machine: machine.spec.cmdline == "movable_node quiet"),
    ("ram=2G", lambda machine: machine.ram_bytes == 2 * GIB),
    ('dimm=[{id = "d0", size = "1G"}]', lambda machine: machine.dimms[0].size_bytes == GIB),
])
def test_override(override, check):
    """VALUE is TOML, or a plain string where it is none or where a string is wanted."""
    assert check(load("default", [override]))


@pytest.mark.parametrize("name", preset_names())
def test_preset_starts(name):
    """Each preset has a line of explanation, and boots."""
    machine = load(name)

    assert explanation(source_text(name)[1]) == machine.explain
    assert len(machine.explain) > 20
    assert power_on(machine).kernel.blocks


@pytest.mark.parametrize(("sizes", "ranges", "base"), [
    (["256M"], [(0x100000, 0xFFE0000, 0)], 4 * GIB),
    (["3584M"], [(0x100000, 0xDFFE0000, 0)], 4 * GIB),
    (["3585M"], [(0x100000, 0xBFFE0000, 0), (0x100000000, 0x120100000, 0)], 5 * GIB),
    (["5G"], [(0x100000, 0xBFFE0000, 0), (0x100000000, 0x180000000, 0)], 6 * GIB),
    (["2G", "4G"], [(0x100000, 0x80000000, 0), (0x80000000, 0xBFFE0000, 1), (0x100000000, 0x1C0000000, 1)], 7 * GIB),
    (["3G", "1G"], [(0x100000, 0xBFFE0000, 0), (0x100000000, 0x140000000, 1)], 5 * GIB),
    (["4G", "0"], [(0x100000, 0xBFFE0000, 0), (0x100000000, 0x140000000, 0)], 5 * GIB),
])
def test_ram_is_laid_out_as_qemu_does(sizes, ranges, base):
    """Below 3 GiB, or 3.5 where that is all, and the rest from 4 GiB on; firmware keeps some; nodes follow in order."""
    nodes = ", ".join(f'{{id = {number}, ram = "{size}"}}' for number, size in enumerate(sizes))

    machine = load("tiny", [f"node=[{nodes}]", f"ram={sum(map(parse_size, sizes))}"])

    found = [(item.start, item.end, item.node) for item in machine.spec.ram]
    assert found == [(0x1000, 0x9FC00, 0), *ranges]
    assert machine.hotplug_base == base
    assert machine.ram_bytes == sum(map(parse_size, sizes))


def test_ram_as_in_iomem():
    """[[ram]] gives ranges exactly, with their nodes and kinds, in the order of their addresses."""
    machine = load("default", ["ram=[{start = '1G', end = '2G', kind = 'movable'}, {start = 0x1000, end = 0x9fc00}, "
                               "{start = 0x100000, end = '1G'}]"])

    assert [(item.start, item.end, item.kind.value) for item in machine.spec.ram] == [
        (0x1000, 0x9FC00, "normal"), (0x100000, GIB, "normal"), (GIB, 2 * GIB, "movable")]


@pytest.mark.parametrize(("text", "base", "maxmem"), [
    ("", 5 * GIB, 64 * GIB),
    ("block-size = '2G'", 6 * GIB, 64 * GIB),
    ("ram = '100G'", 101 * GIB, 200 * GIB),
    ("ram = '40T'", 40 * TIB + GIB, 64 * TIB - GIB),
    ("hotplug-base = '8G'\nmaxmem = '6G'", 8 * GIB, 6 * GIB),
])
def test_room_for_dimms(tmp_path, text, base, maxmem):
    """Without a word it begins with a GiB and a block above boot RAM; RAM can double, or grow to 64 GiB, if it fits."""
    file = tmp_path / "mine.toml"
    file.write_text(text)

    machine = load(str(file))

    assert (machine.hotplug_base, machine.maxmem_bytes) == (base, maxmem)


def test_memory_in_use_from_the_start(tmp_path):
    """[[workload]] by size and by share, used or only promised."""
    file = tmp_path / "mine.toml"
    file.write_text("""
    workload = [{id = "a", kind = "anon", size = "100M"}, {id = "s", kind = "slab", share = "10%"},
                {id = "h", kind = "hugetlb-2M", size = "4M", reserved = true}]
    """)

    found = power_on(load(str(file))).kernel.workloads

    assert found["a"].nr_pages == 100 * MIB // 4096
    assert found["h"].reserved
    assert 0.09 < found["s"].nr_pages * 4096 / (4 * GIB) < 0.1


def check(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "memhpfs", "machine", "check", str(file)], capture_output=True,
                          text=True, check=False)


@pytest.mark.parametrize(("text", "code", "said"), [
    ("", 0, "mine.toml: good; kernel 6.12, 4G of RAM, 1 node(s), 16 slots"),
    ('[[workload]]\nid = "w"\nkind = "anon"\nsize = "100G"', 2, "machine mine: workload w: 100G of anon do not fit"),
    ("slots = -1", 2, "mine.toml: slots: -1 must be between 0 and 256"),
])
def test_machine_check(tmp_path, text, code, said):
    """The command says whether the machine would start, in one line."""
    file = tmp_path / "mine.toml"
    file.write_text(text)

    done = check(file)

    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("\n") == 1


def test_machine_check_has_a_line_for_each_mistake(tmp_path):
    """Those of the file first; where it has none, all that the hardware or the kernel refuses."""
    file = tmp_path / "mine.toml"
    file.write_text("slots = -1\nram = 6M")
    done = check(file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f'memhpfs: {file}: line 2: ram = 6M: put it in quotes: ram = "6M"',
                                        f"memhpfs: {file}: slots: -1 must be between 0 and 256",
                                        f"memhpfs: {file}: ram: 6M is too little for a kernel; at least 256M"]

    file.write_text("workload = [{id = 'a', kind = 'slab', size = '100.5G'}, {id = 'b', kind = 'cma', size = '1M'}]")
    assert check(file).stderr.splitlines() == [
        "memhpfs: machine mine: workload a: 100.5G of slab do not fit",
        "memhpfs: machine mine: workload b: 1M do not fit into CMA, which has 0 left"]


def test_machine_check_warns(tmp_path):
    """A word without effect is told, and the file is still good."""
    file = tmp_path / "mine.toml"
    file.write_text("cmdline = 'quiet movable_nod'")

    done = check(file)

    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stderr == (f"memhpfs: {file}: warning: cmdline: movable_nod has no effect; did you mean "
                           "'movable_node'?\n")


def test_machine_show_is_a_machine_file(tmp_path):
    """What `machine show` prints can be saved and used."""
    done = subprocess.run([sys.executable, "-m", "memhpfs", "machine", "show", "numa2"], capture_output=True, text=True,
                          check=True)
    (tmp_path / "copy.toml").write_text(done.stdout)

    assert load(str(tmp_path / "copy.toml")).spec == load("numa2").spec


@pytest.mark.parametrize("table", [MachineFile, NodeTable, RamTable, DimmTable, WorkloadTable, TimingTable])
def test_help_names_every_key(table):
    """`memhpfs help machines` shows all keys there are."""
    text = (Path(memhpfs.__file__).parent / "help/machines.md").read_text()
    keys = [item.name.rstrip("_").replace("_", "-") for item in fields(table) if item.name != "ram_ranges"]

    assert [key for key in keys if not re.search(rf"\b{key} = |\[{key}\]|`{key}`", text)] == []
