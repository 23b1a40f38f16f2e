"""Tasks with models as arguments, in a module whose annotations are strings."""

from __future__ import annotations

from pydantic_plain import Order, Receipt

from pyramid_tasks import task


@task(pydantic=True)
def charge(request, order: Order, times: int = 1) -> Receipt:
    assert isinstance(order, Order)
    return Receipt(total=order.number * times)


@task(pydantic=True, bind=True)
def bound(self, request, order: Order) -> list[str]:
    assert isinstance(order, Order)
    return [self.name, type(request).__name__, *order.items]


@task(pydantic=True, pydantic_strict=True)
def strict(request, order: Order, note: str | None = None):
    return type(order).__name__


@task(pydantic=True)
def annotated_request(request: Unimportable, order: Order) -> Receipt:  # noqa: F821
    return Receipt(total=order.number)
