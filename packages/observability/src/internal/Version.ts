/** What this is a version of, for reports of faults. */
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

const read = (file: URL | string): string => {
  const manifest: unknown = JSON.parse(readFileSync(file, "utf8"))
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? String(manifest.version)
    : "unknown"
}

/** Beside both `src` and `dist`. */
export const version = read(new URL("../../package.json", import.meta.url))

export const effectVersion = read(createRequire(import.meta.url).resolve("effect/package.json"))
