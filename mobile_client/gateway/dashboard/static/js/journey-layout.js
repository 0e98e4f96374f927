// Positions in the drawing of the three tiers: side by side, or below each other on a narrow page.

const NARROW = 560;
const BOX_HEIGHT = 104;
const INSET = 14;

/** Return the size of the drawing, the boxes of the tiers and the paths of the links. */
export function layout(width) {
  return width < NARROW ? below(width) : beside(width);
}

/** Return the cells of the layers in a box. */
export function cells(box, layers) {
  const gap = layers > 12 ? 2 : 4;
  const room = box.width - 2 * INSET - gap * (layers - 1);
  const size = Math.min(56, room / layers);
  return Array.from({ length: layers }, (_, index) => ({
    x: box.x + INSET + index * (size + gap),
    y: box.y + 54,
    width: size,
    height: 16,
  }));
}

function beside(width) {
  const boxWidth = Math.min(330, 0.4 * width);
  const right = width - boxWidth - 1;
  const mobile = { x: 1, y: 68, width: boxWidth, height: BOX_HEIGHT };
  const edge = { x: right, y: 1, width: boxWidth, height: BOX_HEIGHT };
  const cloud = { x: right, y: 135, width: boxWidth, height: BOX_HEIGHT };
  const start = { x: mobile.x + boxWidth, y: mobile.y + BOX_HEIGHT / 2 };
  const curve = (end) => {
    const middle = (start.x + end.x) / 2;
    return `M${start.x} ${start.y} C${middle} ${start.y} ${middle} ${end.y} ${end.x} ${end.y}`;
  };
  const ends = [edge, cloud].map((box) => ({ x: box.x, y: box.y + BOX_HEIGHT / 2 }));
  return {
    height: 240,
    boxes: { mobile, edge, cloud },
    paths: { edge: curve(ends[0]), cloud: curve(ends[1]) },
    labels: {
      edge: { x: (start.x + right) / 2, y: 74 },
      cloud: { x: (start.x + right) / 2, y: 166 },
    },
  };
}

function below(width) {
  const left = 40;
  const boxWidth = width - left - 1;
  const gap = 44;
  const [mobile, edge, cloud] = [0, 1, 2].map((index) => ({
    x: left,
    y: 1 + index * (BOX_HEIGHT + gap),
    width: boxWidth,
    height: BOX_HEIGHT,
  }));
  const middle = left + boxWidth / 2;
  const side = { top: mobile.y + BOX_HEIGHT / 2, bottom: cloud.y + BOX_HEIGHT / 2 };
  return {
    height: cloud.y + BOX_HEIGHT + 1,
    boxes: { mobile, edge, cloud },
    paths: {
      edge: `M${middle} ${mobile.y + BOX_HEIGHT} L${middle} ${edge.y}`,
      cloud:
        `M${left} ${side.top} C6 ${side.top} 14 ${side.top + 30} 14 ${side.top + 60} ` +
        `L14 ${side.bottom - 60} C14 ${side.bottom - 30} 6 ${side.bottom} ${left} ${side.bottom}`,
    },
    labels: {
      edge: { x: middle, y: mobile.y + BOX_HEIGHT + gap / 2 },
      cloud: { x: left + 44, y: edge.y + BOX_HEIGHT + gap / 2 },
    },
  };
}
