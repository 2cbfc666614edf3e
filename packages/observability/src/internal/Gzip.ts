/** Compresses what a client asks for. */
import * as Effect from "effect/Effect"
import { gzip as gzipOf } from "node:zlib"

/** In a thread of zlib's: its synchronous twin holds the event loop for 100 ms per 8 MB. */
export const gzip = (bytes: Uint8Array): Effect.Effect<Uint8Array> =>
  Effect.callback((resume) =>
    gzipOf(bytes, (error, compressed) => resume(error === null ? Effect.succeed(compressed) : Effect.die(error)))
  )
