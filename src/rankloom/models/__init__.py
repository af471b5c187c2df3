"""The assembly: slots wired to one network, and what it costs."""

from rankloom.models.build import Model, ModelConfig, build_model
from rankloom.models.network import Network

__all__ = ["Model", "ModelConfig", "Network", "build_model"]
