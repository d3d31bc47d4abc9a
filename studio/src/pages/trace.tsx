// The whole timeline as a file that Perfetto opens: made by the studio; an offline page says the command that writes it.
import { useEffect, useRef, useState } from 'preact/hooks'
import { download } from '../chip/save'
import { si } from '../format'
import { start } from '../jobs'
import { Problems } from '../parts'
import type { Problem, Run } from '../types'
import { command, told } from '../words'

/** A file's bytes from base64 of deflated text. */
async function unpacked(text: string): Promise<Blob> {
  const stream = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream('deflate'))
  return new Blob([await new Response(stream).blob()], { type: 'application/json' })
}
export function Trace({ run, exported }: { run: Run; exported: boolean }) {
  const [state, setState] = useState('')
  const [problems, setProblems] = useState<Problem[]>([])
  const [running, setRunning] = useState(false)
  const stop = useRef<() => void>(() => {})
  useEffect(() => () => stop.current(), [])
  const view = run.result.view!
  if (exported || view.job_lacks.length) {
    const given = command(run), line = `${given || 'tierform simulate …'} --trace trace.json`
    const copy = () => navigator.clipboard.writeText(line).then(() => setState('Copied.'), () => setState('The browser does not let pages copy: select the line.'))
    return (
      <section><h2>Every step on its own<span>for Perfetto</span></h2>
        <p class="soft">{exported ? (view.timeline ? 'This file keeps the shares above, not each step.' : 'This file runs no jobs.') : `This run's ${view.job_lacks.join(', ')} has no file.`} {given ? 'This writes the trace:' : 'The run’s own command writes it with --trace:'}</p>
        <pre class="code" tabIndex={0}>{line}</pre>
        {given && <p><button type="button" class="act" onClick={copy}>Copy the command</button></p>}<p class="soft" role="status">{state}</p></section>
    )
  }
  const save = () => {
    if (running) { stop.current(); setRunning(false); setState('Stopped.'); return }
    setProblems([]); setRunning(true); setState('Running: the job once more, each step recorded.')
    stop.current = start({ kind: 'trace', job: view.job }, (event) => {
      if (event.event === 'packed') void unpacked(event.deflated).then((blob) => { download(event.name, blob); setState(`Saved as ${event.name}, ${si(blob.size, 'B')}. Drop it on ui.perfetto.dev, which reads it in the browser.`) }, () => { setState(''); setProblems([{ message: 'This browser cannot unpack the trace', fix: 'Write it: tierform simulate … --trace trace.json' }]) })
      if (event.event === 'problem') { setProblems(event.problems); setState('') }
      if (['end', 'problem', 'stopped'].includes(event.event)) setRunning(false)
    })
  }
  return (
    <section><h2>Every step on its own<span>for Perfetto</span></h2>
      <p><button type="button" class="act" onClick={save}>{running ? 'Stop' : 'Save the trace for Perfetto'}</button></p>
      <p class="soft" role="status">{state || 'The job runs once more and is saved as a file. Nothing is sent out.'}</p>
      {problems.length > 0 && <Problems title="No trace" lines={problems.map((problem) => <>{told(problem)}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}</section>
  )
}
