// What scrolls sideways can be reached by the keyboard: wide tables and long lines of code.
window.addEventListener("load", () => {
  for (const element of document.querySelectorAll(".md-typeset__scrollwrap, .highlight code")) {
    element.tabIndex = 0;
  }
});
