"""Every key that HotSpot's tools read, what a value must be, and bounds that no real stack comes near."""

from __future__ import annotations

MOST = 1e12
MOST_COUNT = 4096
MOST_SIZE_M, LEAST_SIZE_M = 10.0, 1e-9
MOST_POWER_W = 1e6
MOST_KELVIN = 1e5

POSITIVE = (
    "t_chip",
    "k_chip",
    "p_chip",
    "s_sink",
    "t_sink",
    "k_sink",
    "p_sink",
    "s_spreader",
    "t_spreader",
    "k_spreader",
    "p_spreader",
    "t_interface",
    "k_interface",
    "p_interface",
    "r_convec_sec",
    "c_convec_sec",
    "t_metal",
    "t_c4",
    "s_c4",
    "s_sub",
    "t_sub",
    "s_solder",
    "t_solder",
    "s_pcb",
    "t_pcb",
    "ambient",
    "init_temp",
    "sampling_intvl",
    "base_proc_freq",
    "r_convec",
    "c_convec",
    "pumping_pressure",
    "inlet_temperature",
    "coolant_capac",
    "coolant_res",
    "coolant_visc",
    "wall_capac",
    "wall_res",
    "htc",
    "thermal_threshold",
)
COOLER_SIZES = (
    "fin_height",
    "fin_width",
    "channel_width",
    "pin_height",
    "pin_diam",
    "pin_dist",
    "fan_radius",
    "motor_radius",
)
KELVIN = ("ambient", "init_temp", "inlet_temperature", "thermal_threshold")
COUNTS = ("n_metal", "n_c4", "grid_rows", "grid_cols")
FLAGS = (
    "model_secondary",
    "dtm_used",
    "leakage_used",
    "leakage_mode",
    "package_model_used",
    "block_omit_lateral",
    "use_microchannels",
    "use_microfluidic_cooling",
)
WORDS = (
    "init_file",
    "steady_file",
    "model_type",
    "package_config_file",
    "grid_layer_file",
    "grid_steady_file",
    "grid_transient_file",
    "grid_map_mode",
    "coolant_material",
    "wall_material",
    "material_chip",
    "material_sink",
    "material_spreader",
    "material_interface",
    "detailed_3D",
    "materials_file",
    "f",
    "p",
    "o",
    "c",
    "d",
    "network_file",
)
# Keys of the floorplanner that shares the file; heat does not need them.
FLOORPLANNER = (
    "wrap_l2",
    "l2_label",
    "model_rim",
    "rim_thickness",
    "compact_ratio",
    "n_orients",
    "P0",
    "Davg",
    "Kmoves",
    "Rcool",
    "Rreject",
    "Nmax",
    "lambdaA",
    "lambdaT",
    "lambdaW",
)


def bounds(key: str) -> tuple[float, float]:
    """The least and the largest value of a key whose value is positive: sizes and thicknesses, kelvin, others."""
    if key.startswith(("s_", "t_")) or key in COOLER_SIZES:
        return LEAST_SIZE_M, MOST_SIZE_M
    return 1.0 / MOST, MOST_KELVIN if key in KELVIN else MOST


KEYS = ("pump_internal_res", *POSITIVE, *COUNTS, *FLAGS, *WORDS, *FLOORPLANNER)
