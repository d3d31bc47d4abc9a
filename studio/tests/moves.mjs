// How long a what-if move takes in Chromium: from the key that asks for it to the frame that shows the new number.
// `node moves.mjs CONFIG.json`, with the browser, the studio's address and the moves; one line of JSON comes back.
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'

/** Opens the What-if page and waits until the influence of each constant is measured, as a reader sees it. */
export async function openMoves(page) {
  await page.evaluate(() => { location.hash = '#/whatif' })
  await page.waitForSelector('.influences .bar')
  await page.waitForFunction(() => /again/.test([...document.querySelectorAll('button.act')].map((x) => x.innerText).join()), null, { timeout: 120000 })
  await page.evaluate(() => {
    window.moves = []
    let begun = 0
    addEventListener('keydown', (event) => { if (event.key === 'Enter') begun = event.timeStamp }, true)
    // The page marks each answer when it takes it; the next frame shows it, whether or not a rounded figure changed.
    new PerformanceObserver((list) => {
      if (!begun || !list.getEntriesByName('whatif').length) return
      const from = begun
      begun = 0
      // A message posted from a frame is read after that frame is painted.
      requestAnimationFrame(() => { const after = new MessageChannel(); after.port1.onmessage = () => window.moves.push(performance.now() - from); after.port2.postMessage(0) })
    }).observe({ entryTypes: ['measure'] })
  })
}
/** Types one value after another for a constant; milliseconds of each. */
export async function move(page, { path, values }, pause = 0) {
  await page.fill('.page input[type=search]', path)
  await page.click(`.bar:has-text("${path}")`)
  const from = await page.evaluate(() => window.moves.length)
  for (const [k, value] of values.entries()) {
    await page.fill('.control input[type=text]', String(value))
    await page.keyboard.press('Enter')
    await page.waitForFunction((n) => window.moves.length >= n, from + k + 1, { timeout: 20000 })
    await page.waitForTimeout(pause)
  }
  await page.click(`.bar:has-text("${path}")`)
  return page.evaluate((n) => window.moves.slice(n), from)
}
/** A browser without a GPU: nothing on this page is drawn in 3D. */
export const flags = ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--disable-quic', '--disable-gpu']

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const config = JSON.parse(readFileSync(process.argv[2], 'utf8'))
  const browser = await chromium.launch({ executablePath: config.chromium, args: flags })
  const page = await (await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: 'reduce' })).newPage()
  await page.goto(config.address)
  await page.waitForSelector('main')
  await openMoves(page)
  for (const one of config.warm) await move(page, one)
  console.log(JSON.stringify('ready'))
  const found = {}
  for (const one of config.moves) found[one.path] = await move(page, one, config.pause_ms)
  console.log(JSON.stringify(found))
  await browser.close()
}
