import { Meter, type MetricTable } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"

const metric = (kind: MetricTable.Metric["kind"], ...attributes: ReadonlyArray<string>): MetricTable.Metric => ({
  name: "m",
  kind,
  unit: "1",
  attributes,
  description: "D.",
  boundaries: kind === "histogram" ? [1, 2, 5] : undefined
})

/** Its values by those of its attributes. */
const shown = ({ series }: Meter.Meter) =>
  Object.fromEntries(Array.from(series.values(), ({ attributes, value }) => [
    attributes.map(([name, value]) => `${name}=${value}`).join(" "),
    value
  ]))

describe("Meter", () => {
  it("adds to one series for each set of values, in any order and however they are mixed", () => {
    const meter = Meter.make(metric("counter", "a", "b"))
    for (const values of [["1", "1"], ["1", "2"], ["1", "1"], ["2", "1"], ["1", "2"], ["2", "1"], ["1", "1"]]) {
      meter.add(values, 1)
    }
    assert.deepStrictEqual(shown(meter), { "a=1 b=1": 3, "a=1 b=2": 2, "a=2 b=1": 2 })
  })

  it("leaves out what has no value, and takes a value that is missing for one", () => {
    const meter = Meter.make(metric("counter", "a", "b"))
    meter.add(["1", undefined], 1)
    meter.add(["1"], 1)
    meter.add([undefined, "1"], 1)
    assert.deepStrictEqual(shown(meter), { "a=1": 2, "b=1": 1 })
  })

  it("tells apart values that would read alike when put together", () => {
    const meter = Meter.make(metric("counter", "a", "b"))
    for (const values of [["1", "23"], ["12", "3"], ["null", ""], [undefined, ""], ["", undefined]]) {
      meter.add(values, 1)
    }
    assert.strictEqual(meter.series.size, 5)
  })

  it("does not take an array of the caller's that has changed for the one it was", () => {
    const meter = Meter.make(metric("counter", "a"))
    const values = ["1"]
    meter.add(values, 1)
    values[0] = "2"
    meter.add(values, 1)
    assert.deepStrictEqual(shown(meter), { "a=1": 1, "a=2": 1 })
  })

  it("counts observations in the first bucket that holds them, and the rest in the last", () => {
    const meter = Meter.make(metric("histogram"))
    for (const observation of [0, 1, 1.5, 2, 5, 5.1, Infinity]) meter.record([], observation)
    assert.deepStrictEqual(meter.series.get("[]")?.buckets, new Float64Array([2, 2, 1, 2]))
  })

  it("remembers the last exemplar of each bucket", () => {
    const meter = Meter.make(metric("histogram", "a"))
    const exemplar = (value: number): Meter.Exemplar => ({ traceId: "t", spanId: "s", value, at: 0 })
    for (const value of [0.5, 1.5, 0.7]) meter.record(["x"], value, exemplar(value))
    meter.record(["x"], 0.1)
    const { exemplars } = meter.at(["x"])
    assert.deepStrictEqual(exemplars.map((each) => each?.value), [0.7, 1.5])
  })

  it("takes 200 values for an attribute, and what comes then as one", () => {
    const meter = Meter.make(metric("counter", "a", "b"))
    for (let n = 0; n < 1000; n++) meter.add([`a${n}`, "b"], 1)
    assert.strictEqual(meter.series.size, 201)
    assert.isTrue(Meter.overflowed(meter))
    assert.strictEqual(shown(meter)["otel.metric.overflow=true"], 800)
    // Those that are known go on.
    meter.add(["a199", "b"], 1)
    meter.add(["a200", "b"], 1)
    assert.deepInclude(shown(meter), { "a=a199 b=b": 2, "otel.metric.overflow=true": 801 })
  })

  it("takes 2,000 sets of values, and what comes then as one", () => {
    const meter = Meter.make(metric("counter", "a", "b"))
    // Every value is known before there are too many sets of them.
    for (let n = 0; n < 100; n++) meter.add([`a${n}`, `b${n}`], 1)
    for (let n = 0; n < 10_000; n++) meter.add([`a${n % 100}`, `b${Math.floor(n / 100)}`], 1)
    assert.strictEqual(meter.series.size, 2001)
    assert.strictEqual([...meter.series.values()].reduce((sum, { value }) => sum + value, 0), 10_100)
  })

  it("can be bounded otherwise", () => {
    const meter = Meter.make(metric("counter", "a"), { maxValues: 2, maxSeries: 1 })
    for (const value of ["1", "2", "3"]) meter.add([value], 1)
    assert.deepStrictEqual(shown(meter), { "a=1": 1, "otel.metric.overflow=true": 2 })
  })

  it("does not grow with a million names", () => {
    const meter = Meter.make(metric("histogram", "a", "b"))
    for (let n = 0; n < 1_000_000; n++) meter.record([`name ${n}`, n % 2 === 0 ? undefined : `${n}`], 1)
    assert.isAtMost(meter.series.size, 401)
    const counted = [...meter.series.values()].reduce((sum, { buckets }) => sum + (buckets[0] ?? 0), 0)
    assert.strictEqual(counted, 1_000_000)
  }, 10_000)

  it("takes names that differ in lone surrogates alone for one", () => {
    const meter = Meter.make(metric("counter", "a"))
    for (const name of ["x\ud800", "x\ud801", "x\ufffd"]) meter.add([name], 1)
    assert.deepStrictEqual(shown(meter), { "a=x\ufffd": 3 })
  })
})
