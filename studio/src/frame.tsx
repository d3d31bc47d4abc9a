// The bar: wordmark, pages, the run; and the list of keys.
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks'
import type { Mode } from './colour'
import { address, change, go } from './route'
import type { Content, Run } from './types'

/** Pages that are about no single run. */
export const ALONE = ['fit', 'ledger', 'serving', 'exploration']
export function pagesOf(given: Content): [string, string][] {
  const found: [string, string][] = []
  if (given.runs.length > 1) found.push(['compare', 'Compare'])
  if (given.runs.length) found.push(['chip', 'Chip'], ['whatif', 'What-if'])
  if (!given.exported) found.push(['fit', 'Fit'])
  if (given.runs.length) found.push(['operators', 'Operators'], ['timeline', 'Timeline'])
  if (!given.exported || given.services.length) found.push(['serving', 'Serving'])
  if (!given.exported || given.studies.length) found.push(['exploration', 'Exploration'])
  if (!given.exported || given.ledger.length) found.push(['ledger', 'Ledger'])
  if (given.runs.length) found.push(['figures', 'Figures'])
  return found
}
export function Bar({ given, page, run, against, mode, params, onHelp }: { given: Content; page: string; run: Run | undefined; against: Run | null; mode: Mode; params: URLSearchParams; onHelp: () => void }) {
  const kept = new URLSearchParams([...params].filter(([name]) => ['run', 'against', 'theme'].includes(name)))
  const nav = useRef<HTMLElement>(null)
  // Where the pages do not all fit beside each other, the present one is in sight.
  useLayoutEffect(() => { const bar = nav.current!, here = bar.querySelector<HTMLElement>('[aria-current]'); if (here) bar.scrollLeft = here.offsetLeft - bar.offsetLeft - (bar.clientWidth - here.offsetWidth) / 2 }, [page])
  const ofRun = ALONE.includes(page) ? undefined : run
  return (
    <header>
      <a class="mark" href={address('', kept)} onClick={(event) => { event.preventDefault(); go('') }}>Tierform</a>
      <nav ref={nav} aria-label="Pages">
        {pagesOf(given).map(([name, title]) => <a key={name} href={address(name, kept)} aria-current={name === page ? 'page' : undefined} onClick={(event) => { if (!event.ctrlKey && !event.metaKey) { event.preventDefault(); go(name) } }}>{title}</a>)}
      </nav>
      <div class="run">
        {ofRun && given.runs.length > 1 && <label><span>Run</span> <select aria-label="Run" value={ofRun.id} onChange={(event) => change({ run: event.currentTarget.value, tile: null, by: null, t: null }, true)}>{given.runs.map((one) => <option value={one.id}>{one.name}</option>)}</select></label>}
        {ofRun && given.runs.length > 1 && <label><span>against</span> <select aria-label="Compare with" value={against?.id ?? ''} onChange={(event) => change({ against: event.currentTarget.value || null }, true)}><option value="">nothing</option>{given.runs.filter((one) => one.id !== ofRun.id).map((one) => <option value={one.id}>{one.name}</option>)}</select></label>}
        {ofRun && <span class="hash">{ofRun.live ? 'live' : 'saved run'} · {ofRun.result.versions.inputs_sha256.slice(0, 7)}</span>}
        <button type="button" class="icon" aria-label={mode === 'dark' ? 'Use light colours' : 'Use dark colours'} title={mode === 'dark' ? 'Use light colours' : 'Use dark colours'} onClick={() => change({ theme: mode === 'dark' ? 'light' : 'dark' })}>
          <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="1.5" /><path d="M8 2.5a5.5 5.5 0 0 1 0 11z" fill="currentColor" /></svg>
        </button>
        <button type="button" class="icon" aria-label="List the keys" title="List the keys (?)" onClick={onHelp}>?</button>
      </div>
    </header>
  )
}
export function Keys({ pages, onClose }: { pages: [string, string][]; onClose: () => void }) {
  const ref = useRef<HTMLDialogElement>(null)
  useEffect(() => { ref.current?.showModal() }, [])
  const keys: [string, string][] = [
    [`1 to ${pages.length > 9 ? '9, 0' : pages.length}`, pages.map(([, title]) => title).join(', ')], ['arrows', 'next tile'], ['Page Up, Page Down', 'next die'], ['Q, E', 'turn the stack'],
    ['/', 'find'], ['c', 'copy the command that gives this run'], ['s', 'save the picture'], ['Esc', 'clear the selection'], ['?', 'this list'],
  ]
  return (
    <dialog ref={ref} class="keys" aria-label="Keys" onClose={onClose} onClick={(event) => { if (event.target === ref.current) ref.current?.close() }}>
      <h2>Keys</h2>
      <dl class="list">{keys.map(([key, what]) => <><dt><kbd>{key}</kbd></dt><dd>{what}</dd></>)}</dl>
      <button type="button" class="act" onClick={() => ref.current?.close()}>Close the list</button>
    </dialog>
  )
}
