"""Industrial-looking logs whose truth, and so whose ceiling, is known."""

from rankloom.data.simulate.config import SimulationConfig, load_simulation
from rankloom.data.simulate.writer import SPLITS, SUMMARY_FILE, simulate

__all__ = ["SPLITS", "SUMMARY_FILE", "SimulationConfig", "load_simulation", "simulate"]
