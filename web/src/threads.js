/** What LiteRT's WebAssembly can use, here and in workers. */

/** (func (result v128) (i8x16.relaxed_swizzle (i8x16.splat (i32.const 0)) (i8x16.splat (i32.const 0)))) */
const RELAXED_SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0], // "\0asm", version 1
  ...[1, 5, 1, 0x60, 0, 1, 0x7b], // one type: nothing to v128
  ...[3, 2, 1, 0], // one function, of that type
  ...[10, 15, 1, 13, 0], // its code, of 13 bytes, without variables
  ...[0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0xfd, 0x80, 2, 0x0b],
);

/** Whether there is relaxed SIMD, without which LiteRT has neither threads nor its fast code. */
export const hasRelaxedSimd = () => WebAssembly.validate(RELAXED_SIMD);

/**
 * Whether networks can run on all cores. The page must be isolated for that: its host sends `Cross-Origin-Opener-Policy:
 * same-origin` and `Cross-Origin-Embedder-Policy: require-corp`.
 */
export const hasThreads = () =>
  Boolean(globalThis.crossOriginIsolated) && typeof SharedArrayBuffer === "function" && hasRelaxedSimd();
