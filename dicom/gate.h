/* gate.h: words for body parts and views as hospitals write them, for gate.c and image.cc.
 *
 * Texts are searched, never kept: descriptions are free text and may name people.  Bytes beyond
 * ASCII stand for any letter, so "Tórax" is found in every character set.
 */
#ifndef CARZEROD_DICOM_GATE_H
#define CARZEROD_DICOM_GATE_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Names the chest and no other region ("thoracic spine" is none). */
bool gate_text_is_chest(const char *text);
/* Names a lateral view and no frontal one ("chest pa and lateral" is neither). */
bool gate_text_is_lateral(const char *text);
bool gate_text_is_animal(const char *text);

#ifdef __cplusplus
}
#endif
#endif
