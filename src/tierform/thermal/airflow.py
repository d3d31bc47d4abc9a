"""Convective resistance of a finned heat sink in forced air, as HotSpot's package file describes it.

Fan and duct give the air's speed, correlations the Nusselt number: channels between plates after P. Teertstra et al.,
SEMI-THERM 1999 (laminar) and Y. A. Cengel, Heat and Mass Transfer (turbulent); pins in cross-flow after R. Ribando;
air impinging from above after H. A. El-Sheikh and S. V. Garimella, IEEE Trans. Advanced Packaging 23, 2000.
Constants and the way they are put together are HotSpot 7's (source: hotspot-7), whose fin efficiency takes the sink's
side for the fin's height.  Natural convection, which depends on the sink's temperature, is not covered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierform.errors import fail

# Air near 60 °C, and the fan's law of speed (hotspot-7).
_DENSITY, _CONDUCTIVITY, _VISCOSITY, _PRANDTL = 1.059, 0.028, 2.0e-5, 0.73
_TURBULENT_FROM = 3500.0
_RPM_TO_RAD = 0.105
_FAN_RADIUS_POWER = 3.0


@dataclass(frozen=True, slots=True)
class AirCooler:
    """Fins or pins on the sink and the fan that blows; lengths in metres, defaults as in HotSpot."""

    impinging: bool = False
    pins: bool = False
    fin_height_m: float = 0.03
    fin_width_m: float = 0.001
    channel_width_m: float = 0.002
    pin_height_m: float = 0.02
    pin_diameter_m: float = 0.002
    pin_distance_m: float = 0.005
    fan_radius_m: float = 0.03
    motor_radius_m: float = 0.01
    revolutions_per_min: float = 1000.0

    def air_volume_m3_per_s(self) -> float:
        """What the fan moves."""
        blade = math.sqrt(self.fan_radius_m**2 - self.motor_radius_m**2)
        area = math.pi * blade**2
        radius = self.motor_radius_m + blade
        spin = self.revolutions_per_min * _RPM_TO_RAD
        return area * math.sqrt(0.25 * math.pi * radius**_FAN_RADIUS_POWER * spin / area)

    def resistance_K_per_W(self, side_m: float, conductivity_W_per_mK: float) -> float:
        """From a square sink of `side_m` and its material's conductivity to the air."""
        fins = math.ceil((side_m - self.fin_width_m) / (self.fin_width_m + self.channel_width_m) - 0.5)
        across = (side_m - self.pin_diameter_m) / (self.pin_diameter_m + self.pin_distance_m)
        pins = math.ceil(across**2 - 0.5)
        if fins < 2 or pins < 2:
            fail("the sink has no room for two fins or pins", key="sink", value=side_m)
        fin_area = side_m * (side_m + 2 * fins * self.fin_height_m)
        pin_area = side_m**2 + math.pi * self.pin_diameter_m * self.pin_height_m * pins
        volume = self.air_volume_m3_per_s()
        if self.impinging:
            speed = volume / (side_m**2 - pins * math.pi * (self.pin_diameter_m / 2) ** 2)
            length = 2 * side_m / math.sqrt(math.pi)
            wet = pin_area if self.pins else fin_area
            nusselt = 1.92 * _reynolds(speed, length) ** 0.716 * _PRANDTL**0.4 * (wet / side_m**2) ** -0.698
            return float(length / (nusselt * _CONDUCTIVITY * wet))
        length = 2 * self.channel_width_m * side_m / (self.channel_width_m + side_m)
        if self.pins:
            per_side = math.sqrt(pins) - 1
            reynolds = _reynolds(volume / (per_side * self.pin_distance_m * self.pin_height_m), length)
            bank = 0.8 + 0.8333 * math.sqrt(per_side) / (1 + 0.03 * per_side**2) ** 0.25
            nusselt = 0.4 + 0.9 * (1.25 * bank * 0.6 * math.sqrt(reynolds) + 0.001 * reynolds) * _PRANDTL**0.33
            return float(self.pin_diameter_m / (nusselt * _CONDUCTIVITY * pin_area))
        speed = volume / ((fins - 1) * self.channel_width_m * self.fin_height_m)
        reynolds = _reynolds(speed, length)
        if reynolds <= _TURBULENT_FROM:
            channel = _reynolds(speed, self.channel_width_m) * self.channel_width_m / side_m
            developed = (channel * _PRANDTL / 2) ** -3
            entering = (0.664 * math.sqrt(channel) * _PRANDTL**0.33 * math.sqrt(1 + 3.65 / math.sqrt(channel))) ** -3
            film = (developed + entering) ** -0.33 * _CONDUCTIVITY / self.channel_width_m
        else:
            friction = (0.79 * math.log(reynolds) - 1.64) ** -2
            film = 0.125 * friction * reynolds * _PRANDTL**0.33 * _CONDUCTIVITY / length
        reach = side_m * math.sqrt(2 * film / (conductivity_W_per_mK * self.fin_width_m))
        efficiency = math.tanh(reach) / reach
        return float(1.0 / (film * (self.channel_width_m + 2 * efficiency * side_m) * fins * side_m))


def _reynolds(speed: float, length: float) -> float:
    return _DENSITY * speed * length / _VISCOSITY
