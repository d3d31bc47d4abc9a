import './style.css'
import 'uplot/dist/uPlot.min.css'
import { render, type JSX } from 'preact'
import { useEffect, useLayoutEffect, useState } from 'preact/hooks'
import { Answer } from './answer'
import { ChipPage } from './chip/page'
import type { Mode } from './colour'
import { content } from './data'
import { ALONE, Bar, Keys, pagesOf } from './frame'
import { openFile } from './jobs'
import { script } from './parts'
import { change, go, useRoute } from './route'
import type { Content, Run } from './types'
import { command, told } from './words'

function useMode(asked: string | null): Mode {
  const query = matchMedia('(prefers-color-scheme: dark)')
  const [dark, setDark] = useState(query.matches)
  useEffect(() => {
    const listener = () => setDark(query.matches)
    query.addEventListener('change', listener)
    return () => query.removeEventListener('change', listener)
  }, [])
  const mode = asked === 'dark' || asked === 'light' ? asked : dark ? 'dark' : 'light'
  document.documentElement.dataset.theme = mode
  return mode
}

function Page(shown: Shown & { run: Run }) {
  const { page, run, mode } = shown
  if (page !== 'chip') return <More {...shown} />
  if (!run.result.view) {
    return <div class="page"><section class="empty"><h2>This file has no picture of the chip</h2><p>It was written by an older version, or the run came from another process. Simulate again: <code>tierform simulate … --json run.json</code></p></section></div>
  }
  return <ChipPage run={run} mode={mode} />
}

export interface Shown { page: string; run: Run | undefined; runs: Run[]; mode: Mode; given: Content; add: (run: Run) => void }
/** Pages that tell their own answer. */
const OWN = [...ALONE, 'compare', 'whatif']
type MoreModule = { Pages: (shown: Shown) => JSX.Element | null }

/** The other pages come in a script of their own, when one of them is asked for. */
function More(shown: Shown) {
  const [module, setModule] = useState<MoreModule | null>((globalThis as { tierformMore?: MoreModule }).tierformMore ?? null)
  const [broken, setBroken] = useState('')
  useEffect(() => { if (!module) script<MoreModule>('more', 'tierformMore').then(setModule, (error) => setBroken(String(error.message))) }, [])
  if (broken) return <div class="page"><p class="bad">{broken}</p></div>
  return module ? <module.Pages {...shown} /> : <div class="page" />
}

function App({ given: opened }: { given: Content }) {
  const [added, setAdded] = useState<Run[]>([])
  const given = { ...opened, runs: [...opened.runs, ...added] }
  const add = (run: Run) => setAdded((known) => [...known.filter((one) => one.id !== run.id), run])
  const { page, params } = useRoute()
  const mode = useMode(params.get('theme'))
  const [help, setHelp] = useState(false)
  const [said, setSaid] = useState('')
  const { runs } = given
  const run = runs.find((one) => one.id === params.get('run')) ?? runs[0]
  const against = runs.find((one) => one.id === params.get('against')) ?? null
  const pages = pagesOf(given)
  const shown = page || given.first || 'chip'
  useEffect(() => {
    const name = pages.find(([one]) => one === shown)?.[1] ?? shown.charAt(0).toUpperCase() + shown.slice(1)
    document.title = `${name} · Tierform`
  }, [shown])
  useLayoutEffect(() => {
    const listener = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return
      const number = event.key === '0' ? 10 : Number(event.key)
      if (number >= 1 && number <= pages.length) go(pages[number - 1]![0])
      else if (event.key === '?') setHelp((open) => !open)
      else if (event.key === 'Escape') { setHelp(false); change({ tile: null, find: null, t: null }) }
      else if (event.key === '/') { event.preventDefault(); document.querySelector<HTMLInputElement>('input[type=search]')?.focus() ?? go('operators') }
      else if (event.key === 's') dispatchEvent(new Event('tierform:picture'))
      else if (event.key === 'c' && run) {
        const text = command(run)
        if (text) navigator.clipboard?.writeText(text).then(() => setSaid(`Copied: ${text}`), () => setSaid(text))
        else setSaid('This job has no short command: save it with --save-job.')
      }
    }
    addEventListener('keydown', listener)
    return () => removeEventListener('keydown', listener)
  })
  // A result's file can be dropped on any page.
  useEffect(() => {
    if (opened.exported) return
    const over = (event: DragEvent) => event.preventDefault()
    const drop = (event: DragEvent) => {
      event.preventDefault()
      const file = event.dataTransfer?.files[0]
      if (file) void openFile(file, (run) => { add(run); go('chip', { run: run.id }) }, (problems) => setSaid(problems.slice(0, 2).map((one) => `${told(one)}${one.fix ? `. ${one.fix}` : ''}`).join(' ')))
    }
    addEventListener('dragover', over)
    addEventListener('drop', drop)
    return () => { removeEventListener('dragover', over); removeEventListener('drop', drop) }
  }, [])
  useEffect(() => { if (!said) return; const timer = setTimeout(() => setSaid(''), 4000); return () => clearTimeout(timer) }, [said])
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus() }}>Skip to the page</a>
      <Bar given={given} page={shown} run={run} against={against} mode={mode} params={params} onHelp={() => setHelp(true)} />
      <main id="main" tabIndex={run || ALONE.includes(shown) ? -1 : 0} class={run || ALONE.includes(shown) ? '' : 'bare'}>
        {run && !OWN.includes(shown) && <Answer run={run} against={against} route={params} />}
        {run ? <Page page={shown} run={run} runs={runs} mode={mode} given={given} add={add} /> : <More page={shown} run={undefined} runs={[]} mode={mode} given={given} add={add} />}
      </main>
      {help && <Keys pages={pages} onClose={() => setHelp(false)} />}
      <p class="said" role="status">{said}</p>
    </>
  )
}

const root = document.getElementById('app')!
content().then(
  (given) => { performance.mark('loaded'); render(<App given={given} />, root) },
  (error) => render(<main class="bare" tabIndex={0}><section class="empty"><h1>Nothing to show</h1><p>{String(error.message ?? error)}</p></section></main>, root),
)

// What the script of the other pages shares with this one.
export * as preact from 'preact'
export * as hooks from 'preact/hooks'
export * as jsx from 'preact/jsx-runtime'
export * as answer from './answer'
export * as colour from './colour'
export * as data from './data'
export * as format from './format'
export * as jobs from './jobs'
export * as parts from './parts'
export * as route from './route'
export * as words from './words'
