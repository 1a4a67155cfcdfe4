/** Shows the picture before and after, one on top of the other, with a slider between them and zoom. */

const [viewer, scroller, layers, before, after, compare, split, zoomText] = [
  "viewer",
  "scroller",
  "layers",
  "before",
  "after",
  "compare",
  "split",
  "zoom",
].map((id) => document.getElementById(id));

const STEP = 1.5;
const MOST = 8;

/** Size of the result in pixels, and CSS pixels for each of them; 0 shows all of it. */
const size = { width: 1, height: 1 };
let zoom = 0;

/** Shows a picture that has not been processed yet. */
export function showBefore(url, width, height) {
  viewer.hidden = false;
  after.hidden = compare.hidden = true;
  before.src = url;
  Object.assign(size, { width, height });
  setZoom(0);
}

/** Shows the result above it; `width` and `height` are those of the whole result, whatever `url` shows. */
export async function showAfter(url, width, height) {
  after.src = url;
  await after.decode();
  after.hidden = compare.hidden = false;
  Object.assign(size, { width, height });
  setZoom(0);
}

const fit = () => Math.min(scroller.clientWidth / size.width, scroller.clientHeight / size.height);
const least = () => Math.min(fit(), 1);

/** Zooms about a point of the viewer, its middle by default. */
function setZoom(wanted, x = scroller.clientWidth / 2, y = scroller.clientHeight / 2) {
  const old = layers.clientWidth / size.width;
  const [left, top] = [
    (scroller.scrollLeft + x - layers.offsetLeft) / old,
    (scroller.scrollTop + y - layers.offsetTop) / old,
  ];
  zoom = wanted && Math.min(MOST, Math.max(least(), wanted));
  const shown = zoom || fit();
  layers.style.width = `${size.width * shown}px`;
  layers.style.height = `${size.height * shown}px`;
  scroller.scrollLeft = left * shown + layers.offsetLeft - x;
  scroller.scrollTop = top * shown + layers.offsetTop - y;
  zoomText.value = `${Math.round(shown * devicePixelRatio * 100)} %`;
  moveSplit();
}

/** Cuts both pictures at the slider, which stays in place while they are scrolled below it. */
function moveSplit() {
  const share = split.value / 100;
  const cut = scroller.scrollLeft + share * scroller.clientWidth - layers.offsetLeft;
  before.style.clipPath = after.hidden ? "" : `inset(0 ${Math.max(0, layers.clientWidth - cut)}px 0 0)`;
  after.style.clipPath = `inset(0 0 0 ${Math.max(0, cut)}px)`;
  compare.style.setProperty("--split", share);
}

const zoomBy = (factor, x, y) => setZoom((zoom || fit()) * factor, x, y);
const full = () => setZoom(1 / devicePixelRatio);

const onClick = (id, action) => document.getElementById(id).addEventListener("click", action);
onClick("zoom-in", () => zoomBy(STEP));
onClick("zoom-out", () => zoomBy(1 / STEP));
onClick("zoom-fit", () => setZoom(0));
onClick("zoom-full", full);

const KEYS = {
  "+": () => zoomBy(STEP),
  "=": () => zoomBy(STEP),
  "-": () => zoomBy(1 / STEP),
  0: () => setZoom(0),
  1: full,
};
viewer.addEventListener("keydown", (event) => {
  if (!event.ctrlKey && !event.metaKey && KEYS[event.key]) {
    KEYS[event.key]();
    event.preventDefault();
  }
});

/** The position of an event in the viewer. */
function place({ clientX, clientY }) {
  const box = scroller.getBoundingClientRect();
  return [clientX - box.left, clientY - box.top];
}

scroller.addEventListener("scroll", moveSplit);
split.addEventListener("input", moveSplit);
new ResizeObserver(() => setZoom(zoom)).observe(scroller);

scroller.addEventListener("dblclick", (event) =>
  zoom ? setZoom(0) : setZoom(Math.max(1 / devicePixelRatio, fit() * 2), ...place(event)),
);
scroller.addEventListener(
  "wheel",
  (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // plain wheels scroll; touchpads report pinches as Ctrl
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 200), ...place(event));
  },
  { passive: false },
);

// A mouse drags the picture; fingers scroll it by themselves.
scroller.addEventListener("pointermove", (event) => {
  if (event.pointerType === "mouse" && event.buttons === 1) scroller.scrollBy(-event.movementX, -event.movementY);
});

// Two fingers zoom.
let distance = 0;
const apart = ([one, other]) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
scroller.addEventListener("touchstart", ({ touches }) => (distance = touches.length === 2 ? apart(touches) : 0));
scroller.addEventListener(
  "touchmove",
  (event) => {
    if (!distance || event.touches.length !== 2) return;
    event.preventDefault();
    const [one, other] = event.touches;
    const middle = { clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2 };
    zoomBy(apart(event.touches) / distance, ...place(middle));
    distance = apart(event.touches);
  },
  { passive: false },
);
