"""What this package costs, beside plain Celery: ``python -m benchmarks --help``.

Plain Celery means: the same functions less the request, the same settings, the same
options of the worker, and the same Pyramid application loaded, which its tasks do not
use. Both sides take turns in the same run, so that whatever else the machine does meets
both alike.
"""
