/**
 * The page and its assets, read once when the routes are made.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"

/**
 * A file of the page and where it is served.
 *
 * @category models
 * @since 0.1.0
 */
export interface File {
  readonly path: `/${string}`
  readonly content: Uint8Array
  readonly headers: { readonly [name: string]: string }
}

/** Beside both `src` and `dist`. */
const folder = new URL("../dashboard/", import.meta.url)

const assets = [
  { name: "app.js", type: "text/javascript; charset=utf-8" },
  { name: "app.css", type: "text/css; charset=utf-8" },
  { name: "icon.svg", type: "image/svg+xml" }
]

/**
 * Reads the page and its assets. An asset's path holds a hash of its content, so that browsers keep it for ever and
 * never use an old one; the page, which names those paths, answers to every path below `/orchestra`. A file that is
 * missing is a defect: it is part of this package.
 *
 * @category getters
 * @since 0.1.0
 */
export const files: Effect.Effect<ReadonlyArray<File>> = Effect.gen(function*() {
  let page = yield* read("index.html").pipe(Effect.map((content) => new TextDecoder().decode(content)))
  const served: Array<File> = []
  for (const { name, type } of assets) {
    const content = yield* read(name)
    const hash = createHash("sha256").update(content).digest("hex").slice(0, 12)
    const path = `/orchestra/assets/${name.replace(".", `.${hash}.`)}` as const
    page = page.replaceAll(`/orchestra/assets/${name}`, path)
    served.push({
      path,
      content,
      headers: { "content-type": type, "cache-control": "public, max-age=31536000, immutable" }
    })
  }
  const html = new TextEncoder().encode(page)
  return [...served, { path: "/orchestra/*", content: html, headers: { "content-type": "text/html; charset=utf-8" } }]
})

const read = (name: string): Effect.Effect<Uint8Array> => Effect.promise(() => readFile(new URL(name, folder)))
