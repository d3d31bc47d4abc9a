// Labels that never lie on one another: each keeps its place, or moves up until it is free.
export interface Box { x: number; y: number; w: number; h: number }

const meet = (a: Box, b: Box): boolean => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h

export function apart(boxes: Box[], room: { w: number; h: number }, gap = 4): Box[] {
  const placed: Box[] = []
  const order = boxes.map((_, i) => i).sort((i, j) => boxes[j]!.y - boxes[i]!.y)
  const found = boxes.slice()
  for (const i of order) {
    const box = { ...boxes[i]! }
    box.x = Math.max(4, Math.min(room.w - box.w - 4, box.x))
    for (let tries = 0; tries < 20; tries++) {
      const hit = placed.find((other) => meet(box, other))
      if (!hit) break
      box.y = hit.y - box.h - gap
    }
    box.y = Math.max(4, Math.min(room.h - box.h - 4, box.y))
    placed.push(box)
    found[i] = box
  }
  return found
}
