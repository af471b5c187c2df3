"""The Open Inference Protocol (KServe v2) over HTTP; needs neither torch nor Arrow."""

from rankloom.serving.kserve.routes import kserve_routes

__all__ = ["kserve_routes"]
