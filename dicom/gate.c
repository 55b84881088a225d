/* gate.c: is this a frontal chest radiograph of an adult?  By header facts alone; pure C.
 *
 * Job: policy `tags` of the configuration: tags can refuse, and something must speak for the chest.
 * Promise: the same facts give the same answer; the text names the element and what it holds in
 * words of our own, never free text of the sender.
 * Never: looks at pixels; what the header does not say is not guessed.
 *
 * In this order, and why:
 *  1. For Processing (DX's raw variant, or its storage class): linear raw data, not what the model
 *     has seen.  The For Presentation twin of the same exposure is analysed.
 *  2. An animal.  (Quality Control Image YES is no ground: it marks phantoms, and a phantom of a chest
 *     is how a node is tested; whether it may be scored is the model's domain, the keeper's matter.)
 *  3. Modality.  CR, DX, RG and XR are radiographs.  OT, SC and RF (and none) are what scanners,
 *     phones and old gateways write: taken when Body Part or Anatomic Region says chest itself.
 *     Anything else (CT, MR, US, MG, ...) is another kind of picture, whatever the body part says.
 *  4. Body Part Examined that names another region, a chest with another region (babygram), the
 *     ribs or the thoracic spine is believed, even against a description: those are other
 *     exposures.  A value that we do not know speaks neither way.
 *  5. Anatomic Region Sequence naming another region is believed in the same way: Body Part is
 *     often copied from the previous exam, a code is not.
 *  6. View: a lateral, oblique or decubitus View Position or View Code, rows that run to anterior
 *     or posterior, or, with no view stated, a series or protocol description that says lateral.
 *     PA and AP are both frontal.  Study descriptions are not asked: "chest 2 views" covers both.
 *  7. Nothing says chest (Body Part, Anatomic Region, or for CR, DX, RG, XR a description):
 *     not analysed.  An untagged DX may be a knee, and a hospital is better served by a line in
 *     `carzeroctl show` than by a report on a knee.  A site whose modality tags nothing sets
 *     `gate: off` for it.  A view alone is no evidence: hands have PA views too.
 *  8. Chest, but no view stated: analysed, and the evidence says so; most CR leaves it empty.
 *  9. Age below the rule: not analysed.  Unknown age: analysed, and the evidence says so.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#include "dicom/gate.h"
#include "dicom/image.h"

#define WORD_MAX 32

/* ---- words ----------------------------------------------------------------------------------- */

/* Next word in upper case: letters and digits; '.' is dropped ("P.A."), bytes beyond ASCII become
 * one '?'.  False at the end.  Longer words are cut. */
static bool next_word(const char **at, char ret[WORD_MAX])
{
	const char *p = *at;
	size_t n = 0;

	for (; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;
		bool letter = isalnum(c) || c >= 0x80;

		if (c == '.')
			continue;
		if (!letter && n > 0)
			break;
		if (!letter || n == WORD_MAX - 1)
			continue;
		if (c >= 0x80) {
			if (n == 0 || ret[n - 1] != '?')
				ret[n++] = '?';
		} else
			ret[n++] = (char)toupper(c);
	}
	ret[n] = '\0';
	*at = p;
	return n > 0;
}

static bool starts(const char *word, const char *with)
{
	return strncmp(word, with, strlen(with)) == 0;
}

static bool starts_any(const char *word, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (starts(word, list[i]))
			return true;
	return false;
}

static bool is_any(const char *word, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(word, list[i]) == 0)
			return true;
	return false;
}

/* English, German, French, Italian, Spanish, Portuguese, Dutch, Polish, Czech, Hungarian, Turkish. */
static bool word_is_chest(const char *word)
{
	static const char *const anywhere[] = { "CHEST", "THORAX", "TORAX", "T?RAX", "TORACE", "CXR" };
	static const char *const beginning[] = { "THORA", "TORAC", "TORAK", "LUNG", "PULM", "POUMON", "POLMON", "HRUDN",
						 "KLATK", "MELLKAS", "AKC" };

	for (size_t i = 0; i < ARRAY_SIZE(anywhere); i++)
		if (strstr(word, anywhere[i]) != NULL)
			return true;
	return starts_any(word, beginning, ARRAY_SIZE(beginning));
}

/* Regions whose naming beside the chest makes another exposure of it. */
static bool word_is_other_region(const char *word)
{
	static const char *const beginning[] = { "ABD", "SPINE", "COLUM", "COLON", "WIRBEL", "RACHIS", "VERTEB", "LUMB",
						 "CERVI", "PELVI", "RIB", "COSTA", "STERN", "CLAV", "BREAST", "MAMM",
						 "ESOPH", "HEAD", "NECK", "SHOULD" };
	static const char *const whole[] = { "BWS", "TSPINE", "CSPINE", "LSPINE", "THORACOLUMBAR" };

	return starts_any(word, beginning, ARRAY_SIZE(beginning)) || is_any(word, whole, ARRAY_SIZE(whole));
}

static bool word_is_lateral(const char *word)
{
	static const char *const beginning[] = { "LATERAL", "SEITL", "PROFIL", "PERFIL" };
	static const char *const whole[] = { "LAT", "LLAT", "RLAT", "LL", "LATERO" };

	return starts_any(word, beginning, ARRAY_SIZE(beginning)) || is_any(word, whole, ARRAY_SIZE(whole));
}

static bool word_is_frontal(const char *word)
{
	static const char *const beginning[] = { "FRONT", "POSTEROANT", "ANTEROPOST", "POSTERIOANT", "ANTERIOPOST" };
	static const char *const whole[] = { "PA", "AP", "PAP" };

	return starts_any(word, beginning, ARRAY_SIZE(beginning)) || is_any(word, whole, ARRAY_SIZE(whole));
}

bool gate_text_is_chest(const char *text)
{
	char word[WORD_MAX];
	bool chest = false;

	while (next_word(&text, word)) {
		if (word_is_other_region(word))
			return false;
		chest |= word_is_chest(word);
	}
	return chest;
}

bool gate_text_is_lateral(const char *text)
{
	char word[WORD_MAX];
	bool lateral = false;

	while (next_word(&text, word)) {
		if (word_is_frontal(word))
			return false;
		lateral |= word_is_lateral(word);
	}
	return lateral;
}

bool gate_text_is_animal(const char *text)
{
	static const char *const beginning[] = { "CANIN", "FELIN", "EQUIN", "BOVIN", "VETERIN" };
	char word[WORD_MAX];

	while (next_word(&text, word))
		if (starts_any(word, beginning, ARRAY_SIZE(beginning)))
			return true;
	return false;
}

/* ---- evidence -------------------------------------------------------------------------------- */

/* Defined terms of Body Part Examined (PS3.16 annex L) that are not the chest, and how people
 * shorten them.  Compared with the beginning of the value. */
static const char *const other_parts[] = {
	"ABD", "ACETAB", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "BUTTOCK", "CALCAN", "CALF", "CAROTID",
	"CERVIC", "CHEEK", "CLAVIC", "COCCYX", "COLON", "CSPINE", "CTSPINE", "ELBOW", "EXTREM", "EYE", "FACE", "FEMUR",
	"FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HEEL", "HIP", "HUMERUS", "ILIUM", "JAW", "KIDNEY", "KNEE", "LEG",
	"LSPINE", "LSSPINE", "LUMB", "MAMM", "MANDIB", "MAXILLA", "MASTOID", "NASAL", "NECK", "NOSE", "ORBIT",
	"PATELLA", "PELVIS", "RADIUS", "RIB", "SACR", "SCALP", "SCAPULA", "SELLA", "SHOULDER", "SIJOINT", "SINUS",
	"SKULL", "SPINE", "STERN", "SSPINE", "TEETH", "THIGH", "THORACICSPINE", "THUMB", "TIBIA", "TLSPINE", "TMJ",
	"TOE", "TOOTH", "TSPINE", "ULNA", "UTERUS", "WHOLEBODY", "WRIST", "ZYGOMA",
};

/* PS3.16 CID 4031 and CID 4: SNOMED CT and SRT codes. */
static const char *const chest_codes[] = {
	"816094009", "51185008", "43799004", "39607008", "T-D3000", "T-28000",
};
static const char *const other_codes[] = {
	"818981001", "818983003", "113345001", "T-D4000", /* abdomen */
	"416550000", "416775004", "416152001", "417437006", /* chest with other regions */
	"12921003", "816092008", "T-D6000", /* pelvis */
	"69536005", "T-D1100", "89546000", "T-11100", "45048000", "T-D1600", /* head, skull, neck */
	"122494005", "122495006", "122496007", "297171002", "297173004", "T-11501", "T-11502", "T-11503", /* spine */
	"113197003", "T-11300", "56873002", "51299004", "76752008", "T-04000", /* ribs, sternum, clavicle, breast */
	"16982005", "T-D2220", "85050009", "16953009", "14975008", "74670003", "85562004", "7569003", /* arm */
	"29836001", "24136001", "71341001", "72696002", "30021000", "70258002", "56459004", /* leg */
	"66019005", "61685007", "38266002", /* extremity, lower limb, whole body */
};
/* PS3.16 CID 4010. */
static const char *const frontal_codes[] = { "272479007", "399348003", "R-10214", "R-10206" };
static const char *const lateral_codes[] = { "399067008", "399173006", "399198007", "R-10228", "R-10232", "R-10236" };

static enum image_reason say(char *why, enum image_reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static enum image_reason say(char *why, enum image_reason reason, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(why, IMAGE_WHY_MAX, format, ap); /* our own texts fit */
	va_end(ap);
	return reason;
}

/* The entry that the value begins with, so that only words of ours are shown. */
static const char *other_part(const char *value)
{
	char word[WORD_MAX];

	while (next_word(&value, word)) {
		for (size_t i = 0; i < ARRAY_SIZE(other_parts); i++)
			if (starts(word, other_parts[i]) || (word_is_chest(word) && strstr(word, other_parts[i]) != NULL))
				return other_parts[i];
	}
	return NULL;
}

enum modality { RADIOGRAPH, SECONDARY, ANOTHER };

static enum modality modality_of(const struct image_facts *f)
{
	static const char *const radiographs[] = { "CR", "DX", "RG", "XR" };
	static const char *const secondary[] = { "OT", "SC", "RF" };

	if (is_any(f->modality, radiographs, ARRAY_SIZE(radiographs)))
		return RADIOGRAPH;
	if (is_any(f->modality, secondary, ARRAY_SIZE(secondary)))
		return SECONDARY;
	if (f->modality[0] != '\0')
		return ANOTHER;
	/* No modality: the storage class of CR or DX says the same. */
	if (starts(f->sop_class, "1.2.840.10008.5.1.4.1.1.1") &&
	    (f->sop_class[25] == '\0' || strcmp(f->sop_class + 25, ".1") == 0))
		return RADIOGRAPH;
	return SECONDARY;
}

enum view { NO_VIEW, FRONTAL, LATERAL };

static enum view view_position(const char *value)
{
	static const char *const beginning[] = { "OBL", "DECUB" };
	static const char *const whole[] = { "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO" };
	enum view view = NO_VIEW;
	char word[WORD_MAX];

	while (next_word(&value, word)) {
		if (word_is_lateral(word) || is_any(word, whole, ARRAY_SIZE(whole)) ||
		    starts_any(word, beginning, ARRAY_SIZE(beginning)))
			return LATERAL;
		if (word_is_frontal(word))
			view = FRONTAL;
	}
	return view;
}

/* "PA", "AP" or "frontal", as the evidence says it. */
static const char *frontal_name(const struct image_facts *f)
{
	static const char *const pa[] = { "272479007", "R-10214" }, *const ap[] = { "399348003", "R-10206" };

	if (starts(f->view_position, "PA") || is_any(f->view_code, pa, ARRAY_SIZE(pa)))
		return "PA";
	if (starts(f->view_position, "AP") || is_any(f->view_code, ap, ARRAY_SIZE(ap)))
		return "AP";
	return "frontal";
}

static enum image_reason decide_view(const struct image_facts *f, enum view *ret, char *why)
{
	enum view view = view_position(f->view_position);

	if (view == LATERAL)
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "View Position (0018,5101) is not frontal, expected PA or AP");
	if (is_any(f->view_code, lateral_codes, ARRAY_SIZE(lateral_codes)))
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "View Code Sequence (0054,0220) says lateral");
	if (f->orientation[0][0] == 'A' || f->orientation[0][0] == 'P')
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "Patient Orientation (0020,0020) is that of a lateral view: "
			      "rows run front to back");
	if (is_any(f->view_code, frontal_codes, ARRAY_SIZE(frontal_codes)))
		view = FRONTAL;
	if (view == NO_VIEW && f->description_lateral)
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "the series or protocol description says lateral and no view "
			      "is stated");
	*ret = view;
	return IMAGE_OK;
}

/* Points *ret at what speaks for the chest. */
static enum image_reason decide_region(const struct image_facts *f, enum modality modality, const char **ret,
				       char *why)
{
	const char *other = other_part(f->body_part);

	if (other != NULL)
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "Body Part Examined (0018,0015) begins with or holds %s, "
			      "expected CHEST or THORAX", other);
	if (is_any(f->anatomic_code, other_codes, ARRAY_SIZE(other_codes)))
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "Anatomic Region Sequence (0008,2218) names a region other "
			      "than the chest");
	if (gate_text_is_chest(f->body_part))
		*ret = "CHEST";
	else if (is_any(f->anatomic_code, chest_codes, ARRAY_SIZE(chest_codes)))
		*ret = "chest by region code";
	else if (f->description_chest && modality == RADIOGRAPH)
		*ret = "chest by description";
	else
		return say(why, IMAGE_NOT_FRONTAL_CHEST, "nothing says chest: Body Part Examined (0018,0015) and Anatomic "
			      "Region Sequence (0008,2218) are empty or unknown%s",
			      modality == RADIOGRAPH ? ", and so is every description" : "");
	return IMAGE_OK;
}

enum image_reason gate_decide(const struct gate_rules *rules, const struct image_facts *f,
			      char why[IMAGE_WHY_MAX])
{
	enum modality modality = modality_of(f);
	enum view view = NO_VIEW;
	const char *region = "";
	enum image_reason r;

	if (rules->check_view) {
		if (strcmp(f->presentation_intent, "FOR PROCESSING") == 0 ||
		    strcmp(f->sop_class, "1.2.840.10008.5.1.4.1.1.1.1.1") == 0)
			return say(why, IMAGE_FOR_PROCESSING, "Presentation Intent Type (0008,0068) is FOR PROCESSING, expected "
				      "FOR PRESENTATION");
		if (f->animal)
			return say(why, IMAGE_NOT_FRONTAL_CHEST, "Patient Species (0010,2201) or a description names an animal");
		if (modality == ANOTHER)
			return say(why, IMAGE_NOT_FRONTAL_CHEST, "Modality (0008,0060) is not that of a radiograph, expected "
				      "CR or DX");
		r = decide_region(f, modality, &region, why);
		if (r == IMAGE_OK)
			r = decide_view(f, &view, why);
		if (r != IMAGE_OK)
			return r;
	}
	if (rules->min_age > 0 && f->age_years >= 0 && (unsigned)f->age_years < rules->min_age)
		return say(why, IMAGE_TOO_YOUNG, "Patient's Age (0010,1010) or Birth Date (0010,0030) says younger than %u "
			      "years", rules->min_age);
	if (!rules->check_view)
		return say(why, IMAGE_OK, "view and region not checked");
	return say(why, IMAGE_OK, "%s, %s, %s%s", f->modality[0] != '\0' ? f->modality : "no modality", region,
		      view == FRONTAL ? frontal_name(f) : "view not stated",
		      rules->min_age > 0 && f->age_years < 0 ? ", age unknown" : "");
}
