"""Tasks with models as arguments and plain annotations."""

from pydantic import BaseModel

from pyramid_tasks import task


class Order(BaseModel):
    number: int
    items: list[str] = []


class Receipt(BaseModel):
    total: int


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
def annotated_request(request: "Unimportable", order: Order) -> Receipt:  # noqa: F821
    return Receipt(total=order.number)


@task(pydantic=True)
def annotated_otherwise(request, order: Order, other: "Unimportable") -> Receipt:  # noqa: F821
    assert isinstance(order, Order)
    return Receipt(total=order.number)
