/**
 * Shares spans with whatever else in the process uses `@opentelemetry/api`: what its code finds active, within an
 * Effect too, and what provider its tracers make spans with. Whoever has registered these before keeps them.
 */
import * as Otel from "@opentelemetry/api"
import * as Effect from "effect/Effect"
import { AsyncLocalStorage } from "node:async_hooks"

/** The context follows promises and callbacks, as Node follows them. */
class ContextManager implements Otel.ContextManager {
  private readonly storage = new AsyncLocalStorage<Otel.Context>()

  active(): Otel.Context {
    return this.storage.getStore() ?? Otel.ROOT_CONTEXT
  }

  with<A extends Array<unknown>, F extends (...args: A) => ReturnType<F>>(
    context: Otel.Context,
    f: F,
    self?: ThisParameterType<F>,
    ...args: A
  ): ReturnType<F> {
    return this.storage.run(context, () => f.apply(self, args))
  }

  bind<T>(context: Otel.Context, target: T): T {
    if (typeof target !== "function") return target
    const { storage } = this
    const bound = function(this: unknown, ...args: Array<unknown>) {
      return storage.run(context, () => target.apply(this, args))
    }
    // A function of the same parameters and result.
    return bound as T
  }

  enable(): this {
    return this
  }

  disable(): this {
    this.storage.disable()
    return this
  }
}

/** Until the scope is closed. */
export const register = Effect.fnUntraced(function*(provider: Otel.TracerProvider) {
  yield* Effect.acquireRelease(
    Effect.sync(() => Otel.context.setGlobalContextManager(new ContextManager())),
    (isOurs) => Effect.sync(() => isOurs && Otel.context.disable())
  )
  yield* Effect.acquireRelease(
    Effect.sync(() => Otel.trace.setGlobalTracerProvider(provider)),
    (isOurs) => Effect.sync(() => isOurs && Otel.trace.disable())
  )
})
