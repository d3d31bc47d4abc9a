// Builds the pages into the Python package: one plain script each for the pages, the 3D stack and the series, so that
// a server can send them one by one and an exported file can hold them all.
import { readFileSync, writeFileSync, rmSync, mkdirSync, copyFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import subset from 'subset-font'
import { build } from 'vite'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const out = process.argv[2] ?? here('../src/tierform/studio/static')
rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })

// What `more` takes from `pages`, so that both have one address, one Preact, one set of words.
const shared = { preact: 'preact', 'preact/hooks': 'hooks', 'preact/jsx-runtime': 'jsx' }
for (const name of ['answer', 'colour', 'data', 'format', 'jobs', 'parts', 'route', 'words']) shared[name] = name
const nameOf = (id) => shared[id] ?? shared[/studio\/src\/(\w+)(\.tsx?)?$/.exec(id)?.[1] ?? '']
const parts = [
  ['pages', 'src/main.tsx', 'tierformPages'],
  ['more', 'src/more.tsx', 'tierformMore'],
  ['stack', 'src/chip/stack.ts', 'tierformStack'],
  ['series', 'src/series.ts', 'tierformSeries'],
]
for (const [name, entry, global] of parts) {
  await build({
    root: here('.'),
    configFile: false,
    logLevel: 'warn',
    oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
    define: { 'process.env.NODE_ENV': '"production"' },
    build: {
      target: 'es2022',
      outDir: out,
      emptyOutDir: false,
      minify: true,
      cssMinify: true,
      assetsInlineLimit: 0,
      lib: { entry: here(entry), formats: ['iife'], name: global, fileName: () => `${name}.js`, cssFileName: name },
      rollupOptions: {
        external: name === 'more' ? (id) => !!nameOf(id.replace(/^(\.\.?\/)+(?=\w+$)/, '/studio/src/')) : undefined,
        output: {
          globals: (id) => `tierformPages.${nameOf(id.replace(/^(\.\.?\/)+(?=\w+$)/, '/studio/src/'))}`, assetFileNames: '[name][extname]',
        },
      },
    },
  })
}
// Inter with the letters and weights that the pages use; others fall back to the system's font.
const whole = readFileSync(here('node_modules/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2'))
const ascii = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('')
const letters = `${ascii}\u00a0°±²³µ·×÷–—‘’“”…−ÄÖÜäöüßéèáàñçøåæêôûîâ`
writeFileSync(`${out}/inter.woff2`, await subset(whole, letters, { targetFormat: 'woff2', variationAxes: { wght: { min: 400, max: 650 } } }))
copyFileSync(here('src/page.html'), `${out}/page.html`)

// What the pages carry of others, with their terms.
const shipped = ['preact', 'three', 'uplot', '@fontsource-variable/inter']
const notices = shipped.map((name) => {
  const text = ['LICENSE', 'LICENSE.md', 'LICENSE.txt'].flatMap((file) => {
    try { return [readFileSync(here(`node_modules/${name}/${file}`), 'utf8')] } catch { return [] }
  })[0]
  const { version, license } = JSON.parse(readFileSync(here(`node_modules/${name}/package.json`), 'utf8'))
  return `${name} ${version} (${license})\n\n${(text ?? '').trim()}\n`
})
writeFileSync(`${out}/NOTICES.txt`, notices.join('\n----\n\n'))
