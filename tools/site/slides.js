const slides = [...document.querySelectorAll('section')];
const here = () => slides.findIndex(s => s.getBoundingClientRect().top > -innerHeight / 2);
const go = k => slides[Math.max(0, Math.min(slides.length - 1, k))].scrollIntoView();
const steps = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, ' ': 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 };
addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in steps) go(here() + (event.shiftKey ? -1 : 1) * steps[event.key]);
  else if (event.key === 'Home') go(0);
  else if (event.key === 'End') go(slides.length - 1);
  else return;
  event.preventDefault();
});
