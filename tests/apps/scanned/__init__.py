"""A package whose tasks ``config.scan()`` and relative dotted names find."""


def includeme(config):
    """Tasks named relative to this package."""
    config.register_task(".tasks.undecorated", name="relative")
    config.register_task(".tasks:undecorated", name="relative with a colon")
    config.add_task_deriver(".tasks.deriver")
    config.add_periodic_task(60, ".tasks.periodic", name="relative")
