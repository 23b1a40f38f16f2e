"""The deliveries that an application can choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyramid.config.actions import action_method

from ..registry import get_tasks

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from ..registry import Delivery


@action_method
def add_delivery(config: Configurator, name: str, delivery: Delivery) -> None:
    """Register a delivery under a name.

    Args:
        name: The value of ``pyramid_tasks.delivery``, and of the option ``delivery``.
        delivery: An object with the methods of
            :class:`~pyramid_tasks.registry.Delivery`.
    """
    tasks = get_tasks(config.registry)
    tasks.deliveries[name] = delivery
    introspectable = config.introspectable(
        "task deliveries", name, name, "task delivery"
    )
    introspectable.update(name=name, delivery=delivery)

    def register() -> None:
        # The default is known when everything has been included.
        introspectable["default"] = tasks.delivery == name

    config.action(("task delivery", name), register, introspectables=(introspectable,))
