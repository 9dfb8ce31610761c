"""Nothing but the entry points that ``register`` makes: timm lists in ``__all__`` what it finds in this module."""

__all__: list[str] = []
