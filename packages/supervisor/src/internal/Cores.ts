/**
 * How many things may be computed at the same time, as far as the platform tells.
 *
 * @internal
 */
export const cores = (): number => {
  // Known to browsers, and to Node from 21 on.
  const { navigator } = globalThis as { readonly navigator?: { readonly hardwareConcurrency?: number } }
  return Math.max(1, navigator?.hardwareConcurrency ?? 1)
}
