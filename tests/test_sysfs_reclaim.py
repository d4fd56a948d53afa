"""nodeN/reclaim, which 6.18 and newer have."""

import errno

import pytest
from guest_kit import Guest

from memhpfs.errors import NoSuchFile, SysError
from memhpfs.kernel.pages import Use
from memhpfs.units import MIB

NODE = "sys/devices/system/node/node0"


def cached(guest: Guest) -> int:
    return sum(zone.pages.totals[Use.FILE] for zone in guest.kernel.nodes[0].zones.values()) * 4096


@pytest.mark.parametrize("text", ["100M", "104857600 swappiness=60\n", "0x6400000 swappiness=max"])
def test_reclaim_frees_the_page_cache(text):
    """As much as asked for."""
    guest = Guest('kernel = "7.3"\nram = "2G"')
    guest.fill("files", "file", 200 * MIB)
    before = cached(guest)

    guest.write(f"{NODE}/reclaim", text)

    assert before - cached(guest) == 100 * MIB


@pytest.mark.parametrize(("text", "number"), [("junk", errno.EINVAL), ("", 0), ("1M swap", errno.EINVAL),
                                              ("1M swappiness=201", errno.EINVAL), ("1G", errno.EAGAIN)])
def test_reclaim_refuses(text, number):
    """What is no size, an option that there is not, and more than there is."""
    guest = Guest('kernel = "6.18"\nram = "2G"')

    if number:
        with pytest.raises(SysError) as refused:
            guest.write(f"{NODE}/reclaim", text)
        assert refused.value.errno == number
    else:
        guest.write(f"{NODE}/reclaim", text)


def test_older_kernels_have_no_reclaim():
    """The file is not there."""
    with pytest.raises(NoSuchFile):
        Guest('ram = "2G"').write(f"{NODE}/reclaim", "1M")
