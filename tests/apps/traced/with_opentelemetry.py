"""OpenTelemetry, as the documentation says, into a file with a span a line."""

from pathlib import Path

from celery.signals import worker_process_shutdown
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.pyramid import PyramidInstrumentor
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from pyramid.tweens import EXCVIEW

TWEEN = "opentelemetry.instrumentation.pyramid.trace_tween_factory"


def capture_trace(request):
    carrier = {}
    inject(carrier)
    return carrier or None


def restore_trace(request, carrier):
    context = extract(carrier)
    origin = trace.get_current_span(context).get_span_context()
    here = trace.get_current_span().get_span_context()
    if here.trace_id == origin.trace_id:
        return
    span = trace.get_tracer(__name__).start_as_current_span(
        request.current_task.name, context, links=[trace.Link(here)]
    )
    span.__enter__()
    request.add_finished_callback(lambda request: span.__exit__(None, None, None))


def includeme(config):
    path = Path(config.get_settings()["traced.output"])
    exporter = ConsoleSpanExporter(
        out=path.open("a"), formatter=lambda span: span.to_json(indent=None) + "\n"
    )
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    worker_process_shutdown.connect(lambda **_: provider.shutdown(), weak=False)
    CeleryInstrumentor().instrument()
    PyramidInstrumentor().instrument_config(config)
    config.add_tween(TWEEN, over=["pyramid_tm.tm_tween_factory", EXCVIEW])
    config.include("pyramid_tasks")
    config.add_task_context("trace", capture_trace, restore_trace)
