/**
 * The loggers that a routine runs with: they say whose line it is when it is logged, so that a routine that logs nothing
 * pays nothing.
 */
import { path } from "@effect-orchestra/core/Kernel"
import { Current, type RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Attributes from "../Attributes.ts"

/** What is told of each line, of the routine that it belongs to. */
export type Listener = (record: RoutineRecord, line: Logger.Options<unknown>) => void

type Loggers = ReadonlySet<Logger.Logger<unknown, unknown>>

/** The supervisor nearest above a routine. */
export const supervisorPath = (record: RoutineRecord): string | undefined => {
  let above = record.owner
  while (above !== undefined && above.kind !== "supervisor") above = above.owner
  return above === undefined ? undefined : path(above)
}

/** What each line of a routine says of it. */
export const annotationsOf = (record: RoutineRecord, supervisor = supervisorPath(record)): Record<string, unknown> => ({
  [Attributes.routineId]: record.id,
  [Attributes.routineName]: record.name,
  [Attributes.routineAttempt]: record.incarnation,
  ...(supervisor === undefined ? {} : { [Attributes.supervisorPath]: supervisor })
})

/** What stands behind those that are made here. */
const behind = new WeakMap<Logger.Logger<unknown, unknown>, Loggers>()

/** Puts all loggers of a context behind one that says whose line it is, and tells a listener of it. */
export class RoutineLoggers {
  private readonly listener: Listener
  private readonly known = new WeakMap<Loggers, Loggers>()
  /** What became of the context that was given last: most runs begin with that of the one before. */
  private given: Context.Context<never> | undefined = undefined
  private made = Context.empty()

  constructor(listener: Listener) {
    this.listener = listener
  }

  within(context: Context.Context<never>): Context.Context<never> {
    if (context !== this.given) {
      this.made = this.annotating(context)
      this.given = context
    }
    return this.made
  }

  private annotating(context: Context.Context<never>): Context.Context<never> {
    const loggers = Context.get(context, Logger.CurrentLoggers)
    const [first] = loggers
    // A routine within a routine has it already.
    if (loggers.size === 1 && first !== undefined && behind.has(first)) return context
    let known = this.known.get(loggers)
    if (known === undefined) {
      // Its program may have added others.
      const all = new Set([...loggers].flatMap((logger) => [...behind.get(logger) ?? [logger]]))
      const logger = Logger.make<unknown, void>((line) => this.log(all, line))
      behind.set(logger, all)
      this.known.set(loggers, known = new Set([logger]))
    }
    return Context.add(context, Logger.CurrentLoggers, known)
  }

  private log(loggers: Loggers, line: Logger.Options<unknown>): void {
    const record = line.fiber.getRef(Current)
    if (record === undefined) {
      for (const logger of loggers) logger.log(line)
      return
    }
    const supervisor = supervisorPath(record)
    const told = { ...line, fiber: annotated(line.fiber, annotationsOf(record, supervisor)) }
    for (const logger of loggers) {
      // Nothing bounds the events of a span that is open as long as a supervised routine runs.
      if (supervisor === undefined || logger !== Logger.tracerLogger) logger.log(told)
    }
    this.listener(record, told)
  }
}

/** The fiber, as a logger sees it. What its program itself says of a line comes first. */
const annotated = (
  fiber: Fiber.Fiber<unknown, unknown>,
  annotations: Record<string, unknown>
): Fiber.Fiber<unknown, unknown> => {
  const all = { ...annotations, ...fiber.getRef(References.CurrentLogAnnotations) }
  return Object.create(fiber, {
    context: { value: Context.add(fiber.context, References.CurrentLogAnnotations, all) }
  })
}
