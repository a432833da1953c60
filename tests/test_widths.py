"""Channels at a width, in exact arithmetic."""

from decimal import ROUND_FLOOR, Decimal

from hypothesis import given
from hypothesis import strategies as st

from slimdet.widths import WIDTH_STEPS, channels_at, least_width, parse_width

WIDTHS = st.integers(1, WIDTH_STEPS).map(lambda step: step / WIDTH_STEPS)
CHANNELS = st.integers(1, 1 << 20)


@given(WIDTHS, CHANNELS)
def test_channels_are_the_decimal_product_rounded_down(width: float, channels: int) -> None:
    exact = Decimal(str(width)) * channels
    assert channels_at(width, channels) == int(exact.to_integral_value(ROUND_FLOOR))


def test_no_channel_is_lost_to_the_binary_form_of_a_width() -> None:
    assert (int(0.29 * 100), channels_at(0.29, 100)) == (28, 29)
    assert channels_at(parse_width(2 / 3), 300) == 200
    for channels in range(1, 2049):  # the original's widths are exact in binary
        assert [channels_at(width, channels) for width in (0.25, 0.5, 0.75, 1.0)] == [
            int(width * channels) for width in (0.25, 0.5, 0.75, 1.0)
        ]


@given(CHANNELS.filter(lambda channels: channels <= WIDTH_STEPS))
def test_the_least_width_leaves_one_channel_and_none_below_it_does(channels: int) -> None:
    least = least_width(channels)
    assert channels_at(least, channels) >= 1
    assert channels_at(least - 1 / WIDTH_STEPS, channels) == 0
