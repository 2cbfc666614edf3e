/** Row 17: what the barrel of core adds to a program that has `effect` already. */
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "vite"
import { against, bound, type Work } from "./Bench.ts"

const bundled = Effect.promise(() =>
  build({
    configFile: false,
    logLevel: "error",
    // Not as a library: Vite leaves the white space in those.
    build: {
      minify: "oxc",
      target: "es2024",
      write: false,
      modulePreload: false,
      rolldownOptions: {
        input: fileURLToPath(import.meta.resolve("@effect-orchestra/core")),
        preserveEntrySignatures: "strict",
        external: /^effect(\/|$)/
      }
    }
  })
)

const compressed = Effect.gen(function*() {
  const output = yield* bundled
  const files = [output].flat().flatMap((built) => "output" in built ? built.output : [])
  const code = files.flatMap((file) => file.type === "chunk" ? [file.code] : [])
  if (code.length === 0) return yield* Effect.die(new Error("nothing was bundled"))
  return { size: gzipSync(code.join("\n")).length / 1000 }
})

export const work: Work = {
  row: 17,
  rounds: 1,
  warmUp: 0,
  figures: against(
    {
      row: 17,
      work: "core beyond effect, minified and compressed",
      unit: "kB",
      field: "size",
      ours: { name: "@effect-orchestra/core", sample: compressed }
    },
    [[bound("12 kB", { size: 12 }), 1]]
  )
}
