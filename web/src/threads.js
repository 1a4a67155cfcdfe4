/** Whether LiteRT's WebAssembly can have threads, here and in workers. */

/** (func (result v128) (i8x16.relaxed_swizzle (i8x16.splat (i32.const 0)) (i8x16.splat (i32.const 0)))) */
const RELAXED_SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0], // "\0asm", version 1
  ...[1, 5, 1, 0x60, 0, 1, 0x7b], // one type: nothing to v128
  ...[3, 2, 1, 0], // one function, of that type
  ...[10, 15, 1, 13, 0], // its code, of 13 bytes, without variables
  ...[0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0xfd, 0x80, 2, 0x0b],
);

/** The page's host must have sent the headers of docs/deploy.md; LiteRT.js has threads with relaxed SIMD only. */
export const hasThreads = () =>
  self.crossOriginIsolated && typeof SharedArrayBuffer === "function" && WebAssembly.validate(RELAXED_SIMD);
