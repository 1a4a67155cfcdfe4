/** The size of live pictures: what it takes, and that it settles. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { liveSizes, Pace } from "../page/pace.js";
import { spans } from "../src/tiling.js";

const STYLE = { tile: 368, halo: 56, grid: 4, scale: 1 };
const ENLARGING = { tile: 122, halo: 13, grid: 1, scale: 4 };

for (const [network, aspect, widest] of [
  [STYLE, 4 / 3, 1280],
  [STYLE, 9 / 16, 720],
  [ENLARGING, 16 / 9, 1280],
  [ENLARGING, 1, 64],
]) {
  test(`sizes of aspect ${aspect} make the most of their tiles, up to ${widest} pixels`, () => {
    const sizes = liveSizes(aspect, widest, network);
    assert.equal(sizes[0].tiles, 1);
    for (const [index, { width, height, tiles }] of sizes.entries()) {
      assert.equal(spans(width, network).length * spans(height, network).length, tiles);
      assert.ok(width % 2 === 0 && height % 2 === 0 && width <= widest);
      assert.ok(Math.abs(width / aspect - height) <= 2, `${width} × ${height}`);
      assert.ok(Math.max(width, height) * network.scale <= 1920);
      if (index) assert.ok(width > sizes[index - 1].width && tiles > sizes[index - 1].tiles);
    }
    const { width } = sizes[0]; // four more pixels would take another tile, or are not there
    const isOne = (width) => spans(width, network).length * spans(Math.round(width / aspect), network).length === 1;
    assert.ok(width + 4 > widest || !isOne(width + 4));
  });
}

/** Sizes' tiles while each tile takes so many seconds. */
function follow(pace, secondsPerTile, pictures = 60) {
  return Array.from({ length: pictures }, () => {
    pace.notice(secondsPerTile * pace.size.tiles);
    return pace.size.tiles;
  });
}

for (const milliseconds of [2, 5, 9, 20, 40, 80]) {
  test(`with tiles of ${milliseconds} ms it settles at 10 pictures a second, and wastes little`, () => {
    const pace = new Pace(liveSizes(4 / 3, 1280, ENLARGING));
    const tiles = follow(pace, milliseconds / 1000);
    const settled = tiles.slice(-30);
    assert.ok(settled.every((count) => count === settled[0]));
    assert.ok((settled[0] * milliseconds) / 1000 <= 0.1);
    const next = pace.sizes.find((size) => size.tiles > settled[0]);
    assert.ok(!next || (next.tiles * milliseconds) / 1000 > 0.07);
  });
}

test("it gets smaller when the device gets slower, and larger again", () => {
  const pace = new Pace(liveSizes(4 / 3, 1280, ENLARGING));
  const fast = follow(pace, 0.005).at(-1);
  const slow = follow(pace, 0.02).at(-1);
  assert.ok(slow < fast && slow * 0.02 <= 0.1);
  assert.equal(follow(pace, 0.005).at(-1), fast);
});

test("what is too slow stays at one tile, and a clip's size does not change", () => {
  const pace = new Pace(liveSizes(4 / 3, 1280, STYLE));
  assert.equal(follow(pace, 0.5).at(-1), 1);
  pace.isFixed = true;
  assert.equal(follow(pace, 0.001).at(-1), 1);
});
