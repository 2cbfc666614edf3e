/** Row 14: what it costs to be observed. */
import { Orchestrator } from "@effect-orchestra/core"
import { Telemetry } from "@effect-orchestra/observability"
import { Layer, Logger } from "effect"

/** An orchestrator of its own that is observed by telemetry, at which nobody looks, and whose lines go nowhere. */
export const observed = Layer.build(
  Layer.provideMerge(Telemetry.layer, Orchestrator.layerWith({})).pipe(Layer.provide(Logger.layer([])))
)
