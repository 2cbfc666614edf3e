/**
 * The run of a child that is a layer.
 *
 * @internal
 */
import { ready } from "@effect-orchestra/core/Routine"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { LinkedForks } from "./LinkedForks.ts"

/**
 * Builds a layer with a memo map of its own, gives what it gives, and holds it until the run is ended. With `link` the
 * failure of a fiber that the layer forks into its scope while it is built fails the run with its cause.
 *
 * @internal
 */
export const build = (
  layer: Layer.Layer<never, unknown>,
  give: (services: Context.Context<never>) => void,
  link: boolean
): Effect.Effect<never, unknown> =>
  Effect.withFiber((fiber) => {
    const scope = Context.getUnsafe(fiber.context as Context.Context<Scope.Scope>, Scope.Scope)
    const record = fiber.getRef(Current)
    // By way of the writer; and of another run it is no business.
    const forks = !link || record === undefined ?
      undefined :
      new LinkedForks(scope, (cause) =>
        record.kernel.writer.submit({
          run: () => {
            if (record.scope === scope) record.failLinked(cause)
          }
        }))
    return Layer.buildWithMemoMap(layer, forks ?? Layer.makeMemoMapUnsafe(), scope).pipe(
      Effect.flatMap((services) => {
        forks?.end()
        give(Context.omit(Layer.CurrentMemoMap)(services) as Context.Context<never>)
        return Effect.andThen(ready, Effect.never)
      })
    )
  })
