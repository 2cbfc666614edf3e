/** Row 13: 100,000 routines are looked at: how long the event loop stands still for each kind of look. */
import { against, bound, type Size, type Work } from "./Bench.ts"
import * as Peer from "./Peer.ts"

const looks = {
  "the first 100 of 100,000 routines": "routines?limit=100",
  "the same, found by a text": "routines?limit=100&q=er-1",
  "the summary of 100,000 routines": "overview",
  "500 nodes of their tree": "tree?limit=500",
  "500 of 10,000 events": "events?limit=500",
  "a stream of 100,000 routines, opened": "stream",
  "a scrape at 100,000 routines": "/metrics",
  "all that is known of 100,000 routines": "dump",
  "where the fibers of 100,000 routines stand": "/debug/pprof/goroutine"
}

export const work = ({ rounds, smoke }: Size): Work => ({
  row: 13,
  rounds: Math.min(rounds, 1),
  warmUp: 0,
  figures: Object.entries(looks).flatMap(([name, path]) =>
    against({
      row: 13,
      work: `longest slice: ${name}`,
      unit: "ms",
      field: "slice",
      ours: Peer.node(path, "watched.ts", [path, smoke ? "1000" : "100000", smoke ? "1" : "8"])
    }, [[bound("2 ms", { slice: 2 }), 1]])
  )
})
