/** Rows 2 to 4, 12, 15 and 16: many parked routines at once, each population in a process of its own. */
import { against, bound, type Figure, type Size, type Source, type Work } from "./Bench.ts"
import * as Peer from "./Peer.ts"

const named = (name: string, source: Source): Source => ({ ...source, name })

const names: { readonly [kind: string]: string } = {
  child: "child of a DynamicSupervisor",
  fiber: "raw fiber"
}

export const works = ({ rounds, smoke }: Size, { go, otp }: Peer.Peers): ReadonlyArray<Work> => {
  const parked = (kind: string, count: number) =>
    Peer.node(names[kind] ?? kind, "parked.ts", [kind, String(count), smoke ? "1" : "100"], [
      "--expose-gc"
    ])
  const many = smoke ? 1000 : 100_000
  const routines = parked("routine", many)
  const armed = parked("armed", many)
  const raw = parked("fiber", many)
  const children = parked("child", many)
  const processes = otp("simple_one_for_one", "dynamic", String(many))
  const goroutines = go("goroutine", "parked", String(many))
  const crowd = [
    ...against({ row: 2, work: "a parked routine", unit: "bytes", field: "bytes", ours: routines }, [[raw, 1.3]]),
    ...against({ row: 3, work: "stop 100,000 routines, each", field: "stop", ours: routines }, [[raw, 1]]),
    ...against({ row: 3, work: "fork 100,000 and stop them, each", field: "total", ours: routines }, [
      [raw],
      [goroutines]
    ]),
    ...against({ row: 3, work: "longest slice of that stop", unit: "ms", field: "slice", ours: routines }, [
      [bound("5 ms", { slice: 5 }), 1],
      [raw]
    ]),
    ...against({ row: 3, work: "the same with collections", unit: "ms", field: "pause", ours: routines }, [[raw]]),
    ...against({ row: 4, work: "start a child of a template", field: "fork", ours: children }, [
      [raw, 1],
      [processes, 0.5]
    ]),
    ...against({ row: 4, work: "stop 100,000 of them, each", field: "stop", ours: children }, [[raw], [processes]]),
    ...against({ row: 4, work: "one of them, parked", unit: "bytes", field: "bytes", ours: children }, [
      [raw],
      [processes]
    ]),
    ...against({ row: 12, work: "a routine with an idle watchdog", unit: "bytes", field: "bytes", ours: armed }, [
      [routines]
    ]),
    ...against({ row: 12, work: "timers of 100,000 idle watchdogs", unit: "timers", field: "timers", ours: armed }, [
      [bound("1 timer", { timers: 1 }), 1]
    ]),
    ...against({ row: 16, work: "a parked routine", unit: "bytes", field: "bytes", ours: routines }, [
      [goroutines, 0.6]
    ])
  ]
  const million = smoke ? 2000 : 1_000_000
  const growing = (kind: string, name: string, budget?: number) => {
    const at = (count: number, shown: string) => named(`${name} ${shown}`, parked(kind, count))
    const few = at(1000, "1,000")
    const hundred = at(many, "100,000")
    const whole = at(million, "1,000,000")
    // A thousand never leave the nursery of the heap: the first step shows what it costs to live on, to raw fibers too.
    return ["fork", "stop"].flatMap((field): ReadonlyArray<Figure> => [
      ...against({ row: 15, work: `${field} ${name}, each, 100,000`, field, ours: hundred }, [[few, budget]]),
      ...against({ row: 15, work: `${field} ${name}, each, 1,000,000`, field, ours: whole }, [
        [few, budget],
        [hundred, budget]
      ])
    ])
  }
  const thousands = [
    ...against(
      {
        row: 2,
        work: "heap with 1,000,000 parked routines",
        unit: "MB",
        field: "heap",
        ours: parked("routine", million)
      },
      [[bound("1 GB", { heap: 1000 }), 1]]
    ),
    ...growing("routine", "routines", 1.3),
    ...growing("child", "children", 1.3),
    ...growing("fiber", "raw fibers")
  ]
  return [
    { row: 3, rounds: Math.min(rounds, 7), warmUp: 0, figures: crowd },
    { row: 15, rounds: Math.min(rounds, 5), warmUp: 0, figures: thousands }
  ]
}
